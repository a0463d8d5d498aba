import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.models import write_identity, write_mlp
from workers.protocol import (
    BrokenModel,
    Datatype,
    InferRequest,
    InvalidRequest,
    ModelNotFound,
    NoRoom,
    RequestedOutput,
    Tensor,
)
from workers.service import Catalog, Clock

X = Tensor("x", Datatype.FP32, np.ones((2, 4), np.float32))


def ticking_clock() -> Clock:
    """Ten nanoseconds between any two readings; the wall stands at one second."""
    ticks = itertools.count(0, 10)
    return Clock(monotonic_ns=lambda: next(ticks), wall_ns=lambda: 1_000_000_000)


def test_outputs_come_in_the_order_asked_for(repository: Path) -> None:
    model = Catalog(repository).load("pair")
    request = InferRequest(
        inputs=(
            Tensor("a", Datatype.INT64, np.array([[1]])),
            Tensor("b", Datatype.FP32, np.array([[2]], np.float32)),
        ),
        outputs=(RequestedOutput("b_out"), RequestedOutput("a_out")),
        id="7",
    )
    response = model.infer(request)
    assert [(t.name, t.array.tolist()) for t in response.outputs] == [
        ("b_out", [[2.0]]),
        ("a_out", [[1]]),
    ]
    assert (response.model_name, response.model_version, response.id) == ("pair", "1", "7")


def test_unknown_output_is_refused_with_those_there_are(repository: Path) -> None:
    request = InferRequest(inputs=(X,), outputs=(RequestedOutput("z"),))
    with pytest.raises(InvalidRequest, match="unexpected output 'z'; the model gives y"):
        Catalog(repository).load("mlp").infer(request)


def test_metadata_and_config_of_a_batched_model(repository: Path) -> None:
    catalog = Catalog(repository)
    model = catalog.load("mlp")
    assert model.metadata(catalog.versions("mlp")) == {
        "name": "mlp",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    config = model.config()
    assert config["max_batch_size"] == 4
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 2000}
    assert config["labels"] == ["no", "yes"]


def test_config_of_a_model_without_batching_shows_every_dimension(repository: Path) -> None:
    config = Catalog(repository).load("text").config()
    assert config["max_batch_size"] == 0
    assert config["output"] == [{"name": "s_out", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert "dynamic_batching" not in config


def test_statistics_have_tritons_shape(repository: Path) -> None:
    model = Catalog(repository, clock=ticking_clock()).load("mlp")
    model.infer(InferRequest(inputs=(X,)))
    with pytest.raises(InvalidRequest):
        model.infer(InferRequest(inputs=()))
    stats = model.statistics.as_json("mlp", "2")
    assert (stats["inference_count"], stats["execution_count"]) == (2, 1)
    assert stats["last_inference"] == 1000
    phases = stats["inference_stats"]
    assert phases["success"] == {"count": 1, "ns": 50}
    assert phases["compute_infer"] == {"count": 1, "ns": 30}
    assert phases["fail"] == {"count": 1, "ns": 10}
    assert stats["batch_stats"] == [{"batch_size": 2, "compute_infer": {"count": 1, "ns": 10}}]


def test_batching_needs_a_dynamic_first_dimension(tmp_path: Path) -> None:
    options = {"batching": {"max_batch": 2}}
    write_identity(tmp_path, "m", shape=(1, "n"), options=options)
    with pytest.raises(BrokenModel, match="batching is on, but"):
        Catalog(tmp_path).load("m")


WARM_UPS: list[tuple[str, dict[str, Any], str]] = [
    ("unknown input", {"shapes": {"z": [1]}}, "names 'z'"),
    ("shape the model refuses", {"shapes": {"x": [1, 5]}}, r"warm-up failed .* got \[1, 5\]"),
]


@pytest.mark.parametrize(
    ("warm_up", "message"), [r[1:] for r in WARM_UPS], ids=[r[0] for r in WARM_UPS]
)
def test_impossible_warm_up_breaks_the_model(
    tmp_path: Path, warm_up: dict[str, Any], message: str
) -> None:
    write_mlp(tmp_path, "m", width=4, options={"warm_up": warm_up})
    with pytest.raises(BrokenModel, match=message):
        Catalog(tmp_path).load("m")


def test_thread_count_of_the_caller_wins_over_the_models_own(tmp_path: Path) -> None:
    write_mlp(tmp_path, "m", options={"threads": 2})
    assert Catalog(tmp_path).load("m").threads == 2
    assert Catalog(tmp_path, threads=1).load("m").threads == 1


def test_catalog_serves_only_the_named_models(repository: Path) -> None:
    catalog = Catalog(repository, ["mlp"])
    assert catalog.names == ("mlp",)
    with pytest.raises(ModelNotFound, match="unknown model 'text'; this worker serves mlp"):
        catalog.load("text")


@pytest.mark.parametrize("name", ["none", "../mlp"])
def test_catalog_of_a_missing_model_names_those_there_are(repository: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="it has mlp, pair, text"):
        Catalog(repository, [name])


def test_catalog_of_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="is not a folder"):
        Catalog(tmp_path / "none")


def test_model_is_loaded_once_even_when_asked_for_at_once(repository: Path) -> None:
    catalog = Catalog(repository)
    start = threading.Barrier(4)
    models: list[Any] = []

    def load() -> None:
        start.wait(5)
        models.append(catalog.load("mlp", "1"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({id(model) for model in models}) == 1
    assert models[0].version == "1"


def test_broken_model_shows_in_the_index_and_stays_broken(tmp_path: Path) -> None:
    write_mlp(tmp_path, "good")
    write_mlp(tmp_path, "bad").write_bytes(b"")
    catalog = Catalog(tmp_path)
    catalog.load("good")
    for _ in range(2):
        with pytest.raises(BrokenModel, match="bad"):
            catalog.load("bad")
    states = {entry["name"]: entry["state"] for entry in catalog.index()}
    assert states == {"good": "READY", "bad": "UNAVAILABLE"}
    assert "cannot be loaded" in catalog.index()[0]["reason"]


def seconds_clock() -> Clock:
    """The wall clock goes a second further with each look."""
    seconds = itertools.count(1)
    return Clock(wall_ns=lambda: next(seconds) * 1_000_000_000)


def in_memory(catalog: Catalog) -> set[str]:
    return {entry["name"] for entry in catalog.index() if entry["state"] == "READY"}


def test_the_model_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_mlp(tmp_path, name, width=4)
    size = (tmp_path / "a" / "1" / "model.onnx").stat().st_size
    catalog = Catalog(tmp_path, clock=seconds_clock(), memory_bytes=2 * size)
    catalog.load("a").infer(InferRequest(inputs=(X,)))
    catalog.load("b")
    catalog.load("a").infer(InferRequest(inputs=(X,)))
    catalog.load("c")
    assert in_memory(catalog) == {"a", "c"}


def test_a_model_larger_than_the_memory_is_refused_and_drives_out_none(tmp_path: Path) -> None:
    write_mlp(tmp_path, "small", width=4)
    write_mlp(tmp_path, "large", width=64)
    size = (tmp_path / "small" / "1" / "model.onnx").stat().st_size
    catalog = Catalog(tmp_path, memory_bytes=size)
    catalog.load("small")
    with pytest.raises(NoRoom, match=r"'large' has .* bytes, and this worker"):
        catalog.load("large")
    assert in_memory(catalog) == {"small"}


def test_an_unloaded_model_is_loaded_by_its_next_request(tmp_path: Path) -> None:
    write_mlp(tmp_path, "m", width=4)
    catalog = Catalog(tmp_path)
    before = catalog.load("m")
    catalog.unload("m")
    assert in_memory(catalog) == set()
    assert catalog.load("m") is not before
    with pytest.raises(ModelNotFound, match="unknown model 'n'"):
        catalog.unload("n")


def test_loading_anew_finds_what_came_since_and_tries_again_what_was_broken(tmp_path: Path) -> None:
    path = write_mlp(tmp_path, "m", width=4)
    content = path.read_bytes()
    path.write_bytes(b"")
    catalog = Catalog(tmp_path)
    with pytest.raises(BrokenModel):
        catalog.load("m")
    path.write_bytes(content)
    write_mlp(tmp_path, "late", width=4)
    catalog.load_anew("m")
    catalog.load_anew("late")
    assert in_memory(catalog) == {"m", "late"}
    with pytest.raises(ModelNotFound):
        Catalog(tmp_path, ["m"]).load_anew("late")
