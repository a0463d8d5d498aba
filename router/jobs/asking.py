"""A request about jobs, files or batches, and answers to it in the shapes of OpenAI's API."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import msgspec
from aiohttp.http_parser import RawRequestMessage

from router.domain.errors import InvalidRequestError
from router.domain.ports import BackendResponse
from router.gateway.access import identify
from router.gateway.body import Body
from router.gateway.head import read_head
from router.gateway.protocols.request_line import origin_form, segments_of
from router.jobs.deliveries.addresses import CALLBACK_HEADER
from router.jobs.records import NOBODY
from router.runtime import Runtime
from router.settings.keys import ApiKey

JSON = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class Asking:
    """A request about jobs, files or batches: who asks, and for what."""

    body: Body
    method: str
    segments: list[str]
    query: Mapping[str, list[str]]
    runtime: Runtime
    caller: ApiKey | None
    callback: str | None = None
    """Whom to tell, as the client says it; not checked."""

    @property
    def tenant(self) -> str:
        """The tenant whose jobs, files or batches the request is about."""
        return tenant_of(self.caller)

    def number(self, name: str, most: int, default: int) -> int:
        """A number of the query. Raises InvalidRequestError."""
        text = self.query.get(name, [str(default)])[0]
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
            raise InvalidRequestError(f"{name} = {text[:40]!r}, must be 1..{most}")
        return int(text)

    def text(self, name: str) -> str:
        """A text of the query, empty if there is none."""
        return self.query.get(name, [""])[0]


def asking_of(message: RawRequestMessage, body: Body, runtime: Runtime) -> Asking:
    """What a request asks, and who asks. Raises UnauthorizedError and InvalidRequestError."""
    path, _, query = origin_form(message.path).partition("?")
    media = frozenset({"multipart/form-data"})
    head = read_head(message.headers, keys_are_ours=not runtime.keys.is_open, media=media)
    caller = identify(runtime, head.key)
    method = "GET" if message.method == "HEAD" else message.method
    try:
        fields = parse_qs(query, max_num_fields=20)
    except ValueError:
        raise InvalidRequestError("the query has too many fields") from None
    callback = message.headers.get(CALLBACK_HEADER)
    return Asking(body, method, segments_of(path), fields, runtime, caller, callback)


def path_of(message: RawRequestMessage) -> str:
    """The raw path of a request."""
    return origin_form(message.path).partition("?")[0]


def answer_of(document: object, status: int = 200) -> BackendResponse:
    """A JSON document as an answer."""
    return BackendResponse(status, [JSON], msgspec.json.encode(document))


def list_of(documents: list[dict[str, object]], limit: int) -> dict[str, object]:
    """A page of a list, as OpenAI's clients page through it; there is one more than `limit`."""
    page = documents[:limit]
    return {
        "object": "list",
        "data": page,
        "has_more": len(documents) > limit,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def tenant_of(caller: ApiKey | None) -> str:
    """Under which tenant a caller's things are kept."""
    return caller.tenant if caller is not None else NOBODY
