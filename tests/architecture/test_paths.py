"""Each row of the table of paths is what the gateway makes of such a request."""

import pytest

from router.domain.errors import MethodNotAllowedError, RouterError, UnsupportedError
from router.gateway.protocols.base import Question, Target
from router.gateway.protocols.registry import protocol_of
from router.gateway.protocols.request_line import segments_of
from tests.architecture.paths import ROWS, By, Row
from tests.fakes.builders import NOW
from tests.fakes.runtimes import make_runtime

MODELS = """
models:
  - name: m
    slo: {latency_ms: 250}
    openai_paths: [/score]
    pool: {kind: static, urls: ["http://127.0.0.1:1"]}
"""


def outcome(row: Row, path: str, method: str) -> type[RouterError] | By:
    runtime = make_runtime(MODELS)
    path = path.replace("M", "m").replace("V", "1").replace("*", "x")
    headers = {"x-stainless-lang": "python"} if row.protocol == "openai" else {}
    protocol = protocol_of(path, headers, runtime.openai_paths)
    assert protocol.name == row.protocol
    try:
        found = protocol.resolve(Question(method, segments_of(path), runtime, None, NOW))
    except RouterError as error:
        return type(error)
    return By.BACKEND if isinstance(found, Target) else By.GATEWAY


@pytest.mark.parametrize(
    ("row", "path"), [(row, path) for row in ROWS for path in row.paths],
    ids=[f"{row.protocol} {path}" for row in ROWS for path in row.paths],
)  # fmt: skip
def test_a_path_is_what_the_table_says(row: Row, path: str):
    other = "POST" if row.method == "GET" else "GET"
    if row.by is By.NOBODY:
        assert outcome(row, path, row.method) is outcome(row, path, other) is UnsupportedError
    else:
        assert outcome(row, path, row.method) is row.by
        assert outcome(row, path, other) is MethodNotAllowedError
