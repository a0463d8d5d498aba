import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.models import write_mlp
from tests.fakes.oip import binary_input, event_body, http_event, infer_json, json_input
from workers.direct import load_catalog
from workers.http_events import serve
from workers.protocol import ModelNotFound
from workers.service import Catalog

ONES = infer_json(json_input("x", "FP32", [1, 4], [1, 1, 1, 1]))


@pytest.fixture(scope="module")
def catalog(repository: Path) -> Catalog:
    return Catalog(repository)


def test_text_response_is_not_encoded(catalog: Catalog) -> None:
    response = serve(catalog, http_event("POST", "/v2/models/mlp/infer", ONES))
    assert response["statusCode"] == 200
    assert response["isBase64Encoded"] is False
    assert response["headers"] == {"content-type": "application/json"}
    assert json.loads(response["body"])["outputs"][0]["shape"] == [1, 4]


def test_binary_response_is_base64_with_its_json_length(catalog: Catalog) -> None:
    x = np.array([[1, 2, 3, 4]], np.float32)
    head = infer_json(
        binary_input("x", "FP32", [1, 4], 16), parameters={"binary_data_output": True}
    )
    event = http_event(
        "POST",
        "/v2/models/mlp/infer",
        head + x.tobytes(),
        {"inference-header-content-length": str(len(head))},
    )
    response = serve(catalog, event)
    body = event_body(response)
    length = int(response["headers"]["inference-header-content-length"])
    expected = catalog.load("mlp").run({"x": x})[0]
    assert body[length:] == expected.tobytes()
    assert response["headers"]["content-type"] == "application/octet-stream"


def test_plain_text_body_is_taken_as_it_is(catalog: Catalog) -> None:
    event = http_event("POST", "/v2/models/mlp/infer")
    event.update(body=ONES.decode(), isBase64Encoded=False)
    assert serve(catalog, event)["statusCode"] == 200


BAD_EVENTS: list[tuple[str, dict[str, Any], int]] = [
    ("no HTTP event", {}, 400),
    ("other format", {"httpMethod": "GET", "path": "/v2"}, 400),
    ("body is not base64", {**http_event("POST", "/v2/models/mlp/infer", b""), "body": "%"}, 400),
    ("no body", http_event("POST", "/v2/models/mlp/infer"), 400),
    ("unknown path", http_event("GET", "/nope"), 404),
    ("unknown model", http_event("POST", "/v2/models/nope/infer", ONES), 404),
    ("wrong verb", http_event("GET", "/v2/models/mlp/infer"), 405),
    (
        "unknown coding",
        http_event("POST", "/v2/models/mlp/infer", ONES, {"Content-Encoding": "br"}),
        415,
    ),
]


@pytest.mark.parametrize(
    ("event", "status"), [r[1:] for r in BAD_EVENTS], ids=[r[0] for r in BAD_EVENTS]
)
def test_bad_event_is_answered_in_the_protocols_shape(
    catalog: Catalog, event: dict[str, Any], status: int
) -> None:
    response = serve(catalog, event)
    assert response["statusCode"] == status
    assert list(json.loads(response["body"])) == ["error"]


def test_unexpected_failure_tells_the_log_but_not_the_client(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    event = http_event("POST", "/v2/models/mlp/infer", ONES) | {"headers": 5}
    response = serve(catalog, event)
    assert response["statusCode"] == 500
    assert json.loads(response["body"]) == {"error": "internal error"}
    assert "AttributeError" in caplog.text


def test_environment_names_one_model_that_is_loaded_at_once(repository: Path) -> None:
    loaded = load_catalog(
        {"MODEL_REPOSITORY": str(repository), "MODEL_NAME": "mlp", "MODEL_THREADS": "1"}
    )
    assert loaded.loaded("mlp", None) is not None
    assert loaded.names == ("mlp",)


def test_environment_names_the_version_of_requests_without_one(repository: Path) -> None:
    names = {"MODEL_REPOSITORY": str(repository), "MODEL_NAME": "mlp", "MODEL_VERSION": "1"}
    assert load_catalog(names).resolve("mlp", None) == ("mlp", "1")
    assert load_catalog(names).resolve("mlp", "2") == ("mlp", "2")
    assert load_catalog({**names, "MODEL_VERSION": ""}).resolve("mlp", None) == ("mlp", "2")


def test_without_a_name_every_model_is_served_and_loaded_on_first_use(repository: Path) -> None:
    lazy = load_catalog({"MODEL_REPOSITORY": str(repository)})
    assert lazy.loaded("text", None) is None
    assert serve(lazy, http_event("GET", "/v2/models/text/ready"))["statusCode"] == 200
    assert lazy.loaded("text", None) is not None


def test_broken_model_is_not_ready_and_says_why(tmp_path: Path) -> None:
    write_mlp(tmp_path, "bad").write_bytes(b"")
    response = serve(Catalog(tmp_path), http_event("GET", "/v2/models/bad/ready"))
    assert response["statusCode"] == 503
    assert "cannot be loaded" in json.loads(response["body"])["error"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"MODEL_REPOSITORY": ""}, RuntimeError, "set MODEL_REPOSITORY"),
        ({"MODEL_THREADS": "0"}, RuntimeError, "MODEL_THREADS = '0', must be"),
        ({"MODEL_THREADS": "many"}, RuntimeError, "MODEL_THREADS"),
        ({"MODEL_NAME": "nope"}, ModelNotFound, "'nope' is not in"),
        ({"MODEL_NAME": "mlp", "MODEL_VERSION": "7"}, ModelNotFound, "has no version '7'"),
    ],
)
def test_bad_environment_fails_the_start(
    repository: Path, changes: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_catalog({"MODEL_REPOSITORY": str(repository), **changes})
