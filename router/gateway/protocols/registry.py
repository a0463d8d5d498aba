"""The wire protocols that the data port speaks. A new one is a file beside this and a line here."""

from collections.abc import Collection, Mapping
from urllib.parse import unquote

from router.gateway.protocols.anthropic import ANTHROPIC
from router.gateway.protocols.base import WireProtocol
from router.gateway.protocols.kserve_v1 import KSERVE_V1
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI

PROTOCOLS: tuple[WireProtocol, ...] = (ANTHROPIC, OPENAI, KSERVE_V1, OIP)
"""The first that owns a path has it; the last is asked for what no other one knows."""


def protocol_of(
    path: str, headers: Mapping[str, str], openai_paths: Collection[str] = ()
) -> WireProtocol:
    """The protocol that says what a raw path is, and in whose shape its errors are answered.

    `openai_paths` are those that the configuration adds.
    """
    text = unquote(path)
    if text in openai_paths:
        return OPENAI
    return next((found for found in PROTOCOLS if found.owns(text, headers)), PROTOCOLS[-1])
