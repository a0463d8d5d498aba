import pytest

from router.domain.addressing import path_for
from router.domain.request import Protocol

OIP, V1 = Protocol.OIP, Protocol.KSERVE_V1


@pytest.mark.parametrize(
    ("protocol", "path", "model", "version", "expected"),
    [
        (OIP, "/v2/models/m/infer", "n", None, "/v2/models/n/infer"),
        (OIP, "/v2/models/m/infer", "n", "2", "/v2/models/n/versions/2/infer"),
        (OIP, "/v2/models/m/versions/1/infer", "n", "2", "/v2/models/n/versions/2/infer"),
        (OIP, "/v2/models/m/versions/1/infer", "n", None, "/v2/models/n/infer"),
        (OIP, "/v2/models/m", "n", "2", "/v2/models/n/versions/2"),
        (OIP, "/v2/models/m/stats", "n", None, "/v2/models/n/stats"),
        (OIP, "/v2/models/org%2Fm/infer", "org/n", None, "/v2/models/org%2Fn/infer"),
        (OIP, "/v2/models/versions/infer", "n", None, "/v2/models/n/infer"),
        (V1, "/v1/models/m:predict", "n", None, "/v1/models/n:predict"),
        (V1, "/v1/models/m:predict", "org/n", "2", "/v1/models/org%2Fn:predict"),
        (Protocol.OPENAI, "/v1/embeddings", "n", "2", "/v1/embeddings"),
    ],
    ids=[
        "another model",
        "a version where there was none",
        "another version",
        "the version goes",
        "metadata",
        "a question about a model",
        "a name with a slash is quoted",
        "a model called versions",
        "v1 keeps its verb",
        "v1 knows no versions",
        "the model is in the body",
    ],
)
def test_paths(protocol, path, model, version, expected):
    assert path_for(protocol, path, model, version) == expected
