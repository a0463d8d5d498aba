import pytest

from workers.operations import Endpoint, Operation, match
from workers.protocol import PathNotFound, VerbNotAllowed

PATHS = [
    ("GET", "/v2", Operation(Endpoint.SERVER)),
    ("GET", "/v2/", Operation(Endpoint.SERVER)),
    ("GET", "/v2/health/live", Operation(Endpoint.LIVE)),
    ("GET", "/v2/health/ready", Operation(Endpoint.READY)),
    ("GET", "/v2/models", Operation(Endpoint.MODELS)),
    ("GET", "/v2/models/stats", Operation(Endpoint.ALL_STATS)),
    ("POST", "/v2/repository/index", Operation(Endpoint.INDEX)),
    ("POST", "/v2/repository/models/m/load", Operation(Endpoint.LOAD, "m")),
    ("POST", "/v2/repository/models/a%20b/unload", Operation(Endpoint.UNLOAD, "a b")),
    ("GET", "/v2/models/m", Operation(Endpoint.METADATA, "m")),
    ("GET", "/v2/models/m/ready", Operation(Endpoint.MODEL_READY, "m")),
    ("GET", "/v2/models/m/config", Operation(Endpoint.CONFIG, "m")),
    ("GET", "/v2/models/m/versions/3", Operation(Endpoint.METADATA, "m", "3")),
    ("GET", "/v2/models/m/versions/3/stats", Operation(Endpoint.STATS, "m", "3")),
    ("POST", "/v2/models/m/infer", Operation(Endpoint.INFER, "m")),
    ("POST", "/v2/models/m/versions/3/infer", Operation(Endpoint.INFER, "m", "3")),
    ("POST", "/v2/models/a%20b%2Fc/infer", Operation(Endpoint.INFER, "a b/c")),
]


@pytest.mark.parametrize(("verb", "path", "expected"), PATHS, ids=[f"{v} {p}" for v, p, _ in PATHS])
def test_path_is_matched(verb: str, path: str, expected: Operation) -> None:
    assert match(verb, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/models/m:explain",
        "/v2/models/m/nope",
        "/v2/models//infer",
        "/v2/models/m/versions",
    ],
)
def test_other_paths_do_not_exist(path: str) -> None:
    with pytest.raises(PathNotFound):
        match("GET", path)


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/v2/models/m/infer"), ("POST", "/v2/models/m"), ("GET", "/v2/repository/index")],
)
def test_wrong_verb_is_told_the_right_one(verb: str, path: str) -> None:
    with pytest.raises(VerbNotAllowed, match=r"takes (GET|POST), not") as caught:
        match(verb, path)
    assert caught.value.status == 405
