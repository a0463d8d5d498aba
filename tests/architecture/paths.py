"""What each path of the data port is: the rows are shown in docs/endpoints.md, and tested."""

from enum import StrEnum
from typing import NamedTuple


class By(StrEnum):
    """Who answers."""

    GATEWAY = "the gateway"
    BACKEND = "a backend"
    NOBODY = "nobody"


class Row(NamedTuple):
    """Paths that are alike. M is a model's name, V a version, * any one word."""

    method: str
    paths: tuple[str, ...]
    protocol: str
    by: By
    told: str


_MODEL = ("/v2/models/M", "/v2/models/M/versions/V")
_LISTS = ("/v1/models", "/v1/models/M")

ROWS = (
    Row("GET", ("/", "/v2"), "oip", By.GATEWAY, "name, version, the extensions that work"),
    Row(
        "GET", ("/v2/health/live", "/v2/health/ready"), "oip", By.GATEWAY,
        "needs no key; not ready (503) while the gateway drains",
    ),
    Row("GET", ("/v2/models",), "oip", By.GATEWAY, "the names that the caller's key may use"),
    Row(
        "GET", ("/v2/models/stats",), "oip", By.GATEWAY,
        "what this process has counted of all models, in Triton's words",
    ),
    Row(
        "POST", ("/v2/repository/index",), "oip", By.GATEWAY,
        "models, their known versions and states; `{\"ready\": true}`: only those that are",
    ),
    Row(
        "GET", tuple(f"{path}/ready" for path in _MODEL), "oip", By.GATEWAY,
        "can a request find a backend, if need be after a start? If not, 503",
    ),
    Row(
        "GET", (*_MODEL, *(f"{path}/{what}" for what in ("config", "stats") for path in _MODEL)),
        "oip", By.BACKEND, "passed on; of several replicas one answers",
    ),
    Row(
        "POST", tuple(f"{path}/infer" for path in _MODEL), "oip", By.BACKEND,
        "inference: JSON, binary tensors, gzip and deflate, byte-exact",
    ),
    Row(
        "POST",
        (
            "/v2/repository/models/M/load", "/v2/repository/models/M/unload", "/v2/trace/setting",
            "/v2/models/M/trace/setting", "/v2/logging", "/v2/systemsharedmemory/*",
            "/v2/cudasharedmemory/*",
        ),
        "oip", By.NOBODY, "501 with the reason, also for `GET`",
    ),
    Row("GET", _LISTS, "kserve_v1", By.GATEWAY, "in the shapes of KServe and of OpenAI at once"),
    Row(
        "GET", _LISTS, "openai", By.GATEWAY,
        "the same for clients that send `x-stainless-lang`, as OpenAI's do; errors in their shape",
    ),
    Row("POST", ("/v1/models/M:predict",), "kserve_v1", By.BACKEND, "inference, byte-exact"),
    Row(
        "POST",
        (
            "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
            "/v1/moderations", "/v1/rerank", "/v1/audio/*", "/v1/images/*",
        ),
        "openai", By.BACKEND,
        "the model is named in JSON or in a multipart form; streams pass unbuffered",
    ),
    Row(
        "POST", ("/score",), "openai", By.BACKEND,
        "an example of a path that a model's `openai_paths` adds: the same, for that model alone",
    ),
    Row(
        "POST", ("/v1/messages", "/v1/messages/count_tokens"), "anthropic", By.BACKEND,
        "the same, with errors in Anthropic's shape",
    ),
    Row("POST", ("/v1/feedback",), "feedback", By.GATEWAY, "labels of answers that were given"),
)  # fmt: skip


def table() -> str:
    """The rows in Markdown."""
    rows = [
        f"| `{row.method}` | {', '.join(f'`{path}`' for path in row.paths)} | {row.protocol} |"
        f" {row.by} | {row.told} |"
        for row in ROWS
    ]
    head = "| method | path | protocol | answered by | what happens |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])
