import re

import pytest

from router.domain.addressing import MODEL_NAME, clean_query, is_version
from router.gateway.protocols.kserve_v1 import KSERVE_V1
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI

V1 = KSERVE_V1


@pytest.mark.parametrize(
    ("protocol", "action", "model", "version", "expected"),
    [
        (OIP, "infer", "n", None, "/v2/models/n/infer"),
        (OIP, "infer", "n", "2", "/v2/models/n/versions/2/infer"),
        (OIP, "", "n", "2", "/v2/models/n/versions/2"),
        (OIP, "", "n", None, "/v2/models/n"),
        (OIP, "stats", "n", None, "/v2/models/n/stats"),
        (OIP, "infer", "org/n", None, "/v2/models/org%2Fn/infer"),
        (OIP, "infer", "versions", None, "/v2/models/versions/infer"),
        (V1, "predict", "n", None, "/v1/models/n:predict"),
        (V1, "predict", "org/n", "2", "/v1/models/org%2Fn:predict"),
        (OPENAI, "chat/completions", "n", "2", "/v1/chat/completions"),
    ],
    ids=[
        "no version",
        "a version",
        "metadata of a version",
        "metadata",
        "a question about a model",
        "a name with a slash is quoted",
        "a model called versions",
        "v1 has its verb",
        "v1 knows no versions",
        "the model is in the body",
    ],
)
def test_paths(protocol, action, model, version, expected):
    assert protocol.path(action, model, version) == expected


@pytest.mark.parametrize("text", ["1", "1.0", "v1_2-rc.3", "...", "a..b"])
def test_versions(text):
    assert is_version(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "1/2", "1\\2", "1%23", "1#", "1\n", "é", "1" * 101]
)
def test_what_is_no_version(text):
    assert not is_version(text)


@pytest.mark.parametrize(
    ("query", "clean"),
    [("a=b&c=%20/?:@", "a=b&c=%20/?:@"), ("a#b", "a%23b"), ("\\|é", "%5C%7C%C3%A9")],
)
def test_queries(query, clean):
    assert clean_query(query) == clean


@pytest.mark.parametrize("name", ["m", "org/m", "org/team/m.v2", "...", "a/..b", "m" * 200])
def test_names_of_models(name):
    assert re.fullmatch(MODEL_NAME, name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../m", "a/..", "a/./b", "/a", "a/", "a//b", "a b", "a\n", "m" * 201]
)
def test_what_is_no_name_of_a_model(name):
    assert not re.fullmatch(MODEL_NAME, name)
