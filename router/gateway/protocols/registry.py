"""The wire protocols that the data port speaks. A new one is a file beside this and a line here."""

from collections.abc import Collection, Mapping
from urllib.parse import unquote

from router.gateway.protocols.anthropic import ANTHROPIC
from router.gateway.protocols.base import WireProtocol
from router.gateway.protocols.feedback import FEEDBACK
from router.gateway.protocols.kserve_v1 import KSERVE_V1
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI

PROTOCOLS: tuple[WireProtocol, ...] = (ANTHROPIC, OPENAI, KSERVE_V1, OIP)
"""The first that owns a path has it; the last is asked for what no other one knows."""


_OWN: tuple[WireProtocol, ...] = (FEEDBACK,)
"""What clients ask the gateway itself, and no model."""


def protocol_of(
    path: str, headers: Mapping[str, str], openai_paths: Collection[str] = ()
) -> WireProtocol:
    """The protocol that says what a raw path is, and in whose shape its errors are answered.

    `openai_paths` are those that the configuration adds.
    """
    text = unquote(path)
    if text in openai_paths:
        return OPENAI
    known = (*_OWN, *PROTOCOLS)
    return next((found for found in known if found.owns(text, headers)), PROTOCOLS[-1])
