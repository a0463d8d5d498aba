"""The headers with which a client's request goes on to a model server. Pure."""

from functools import lru_cache

from router.domain.request import InferenceRequest


def forwarded_headers(request: InferenceRequest) -> list[tuple[str, str]]:
    """The client's headers, with the request's id and a content type where there was none."""
    headers = [(name, value) for name, value in request.headers.items() if name != "x-request-id"]
    headers.append(("x-request-id", request.request_id))
    if request.payload_bytes and "content-type" not in request.headers:
        # Clients of the binary protocol send none; KServe's server refuses JSON without it.
        is_json = "inference-header-content-length" not in request.headers
        headers.append(
            ("content-type", "application/json" if is_json else "application/octet-stream")
        )
    return headers


@lru_cache(maxsize=1024)
def read_line(line: bytes) -> tuple[str, str]:
    """Name (lower case) and value of a line of a head that goes on as it came."""
    name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
    return name.lower(), value.strip(" \t")
