"""The request path under which a backend knows a model and its version. Pure; bodies are not seen.

OpenAI's paths name no model: there the gateway changes the name in the body (`gateway.openai`).
"""

from urllib.parse import quote

from router.domain.request import Protocol

_PREDICT = ":predict"


def path_for(protocol: Protocol, path: str, model: str, version: str | None) -> str:
    """The raw `path` of a model request with another model and version in it, none for None.

    KServe V1 has no versions: there the version is dropped.
    """
    segments = path.split("/")
    name = quote(model, safe="")
    match protocol:
        case Protocol.OIP:
            after_model = segments[4:]
            rest = after_model[2:] if after_model[:1] == ["versions"] else after_model
            versions = [] if version is None else ["versions", quote(version, safe="")]
            return "/".join([*segments[:3], name, *versions, *rest])
        case Protocol.KSERVE_V1:
            suffix = _PREDICT if path.endswith(_PREDICT) else ""
            return "/".join([*segments[:3], name + suffix])
        case Protocol.OPENAI:
            return path
