"""The core every front shares: models, and the steps of one inference.

Decides how a request becomes a run and a run an answer. Synchronous and transport-free: a front
without an event loop calls `Model.infer`, one with batching calls `prepare`, `run`, `respond`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.classification import classified
from workers.engine import Engine, Feeds, validate_inputs, zeros
from workers.protocol import (
    Array,
    BrokenModel,
    Datatype,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ModelNotFound,
    NoRoom,
    RequestedOutput,
    Tensor,
    TensorSpec,
    WorkerError,
)
from workers.repository import ModelFile, find_model, list_models
from workers.statistics import Statistics, Timing

PLATFORM: Final = "onnxruntime_onnx"
SERVER_NAME: Final = "hybrid-router-worker"
SERVER_VERSION: Final = "0.2.0"  # a constant: a function's package carries no metadata to read
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)

_CONFIG_TYPES: Final[Mapping[Datatype, str]] = {
    datatype: "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype}"
    for datatype in Datatype
}


@dataclass(frozen=True, slots=True)
class Clock:
    """Nanoseconds: `monotonic_ns` for durations, `wall_ns` since the epoch."""

    monotonic_ns: Callable[[], int] = time.perf_counter_ns
    wall_ns: Callable[[], int] = time.time_ns


class Model:
    """One loaded and warmed model version. All methods may be called from several threads."""

    def __init__(self, file: ModelFile, threads: int | None, clock: Clock) -> None:
        """Load and warm up; raises BrokenModel. `threads` wins over the model's own option."""
        self.name = file.name
        self.version = file.version
        self.options = file.options
        self.size_bytes = file.size_bytes
        self._loaded_ms = clock.wall_ns() // 1_000_000
        self.threads = threads or file.options.threads or 1
        self.statistics = Statistics()
        self._clock = clock
        self._engine = Engine(file, self.threads)
        self._output_names = frozenset(spec.name for spec in self._engine.outputs)
        self.max_batch = self._max_batch(file)
        self._warm_up()

    def _max_batch(self, file: ModelFile) -> int:
        batching = file.options.batching
        if batching is None:
            return 0
        if not self._engine.first_axis_is_dynamic:
            raise BrokenModel(
                f"{file.path}: batching is on, but not every input and output has a dynamic "
                "first dimension"
            )
        return batching.max_batch

    def _warm_up(self) -> None:
        shapes = self.options.warm_up.shapes
        unknown = set(shapes) - {spec.name for spec in self._engine.inputs}
        if unknown:
            raise BrokenModel(
                f"model {self.name!r}: warm_up.shapes names {min(unknown)!r}, no input"
            )
        try:
            feeds = validate_inputs(self._engine.inputs, zeros(self._engine.inputs, shapes))
            for _ in range(self.options.warm_up.runs):
                self._engine.run(feeds)
        except WorkerError as error:
            raise BrokenModel(
                f"model {self.name!r}: the warm-up failed ({error}); give warm_up.shapes that the "
                "model takes, or set warm_up.runs to 0"
            ) from error

    @property
    def runs_evenly(self) -> bool:
        """Whether runs on inputs of one size take one time, whatever the values."""
        return self._engine.runs_evenly

    @property
    def last_used_ms(self) -> int:
        """When it answered last, or was loaded; milliseconds since the epoch."""
        return max(self._loaded_ms, self.statistics.last_inference_ms)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes."""
        return self._engine.inputs

    def prepare(self, request: InferRequest) -> Feeds:
        """The validated inputs; raises InvalidRequest, also for outputs the model does not have."""
        for requested in request.outputs:
            if requested.name not in self._output_names:
                raise InvalidRequest(
                    f"unexpected output {requested.name[:128]!r}; the model gives "
                    f"{', '.join(spec.name for spec in self._engine.outputs)}"
                )
        return validate_inputs(self._engine.inputs, request.inputs)

    def run_uncounted(self, feeds: Feeds) -> list[Array]:
        """As `run`, for callers that count the execution themselves."""
        return self._engine.run(feeds)

    def run(self, feeds: Feeds) -> list[Array]:
        """All outputs of one execution; blocks. Raises InvalidRequest or InferenceFailed."""
        started = self._clock.monotonic_ns()
        results = self._engine.run(feeds)
        self.statistics.record_execution(rows_of(feeds), self._clock.monotonic_ns() - started)
        return results

    def respond(self, request: InferRequest, results: Sequence[Array]) -> InferResponse:
        """The answer with the outputs the client asked for, in its order."""
        outputs = tuple(
            [  # a list: half the cost of a generator
                Tensor(spec.name, spec.datatype, array)
                for spec, array in zip(self._engine.outputs, results, strict=True)
            ]
        )
        if request.outputs:
            by_name = {tensor.name: tensor for tensor in outputs}
            outputs = tuple(self._wanted(by_name[r.name], r) for r in request.outputs)
        return InferResponse(self.name, self.version, outputs, request.id)

    def _wanted(self, tensor: Tensor, requested: RequestedOutput) -> Tensor:
        if not requested.classes:
            return tensor
        is_first = tensor.name == self._engine.outputs[0].name
        return classified(tensor, requested.classes, self.options.labels if is_first else ())

    def infer(self, request: InferRequest) -> InferResponse:
        """One request from start to end on the calling thread, with its statistics."""
        clock = self._clock.monotonic_ns
        started = clock()
        try:
            feeds = self.prepare(request)
            prepared = clock()
            results = self.run(feeds)
            ran = clock()
            response = self.respond(request, results)
        except WorkerError:
            self.statistics.record_failure(clock() - started)
            raise
        timing = Timing(0, prepared - started, ran - prepared, clock() - ran)
        self.record_success(feeds, timing)
        return response

    def record_success(self, feeds: Feeds, timing: Timing) -> None:
        """Count one answered request; `infer` does it itself."""
        wall_ms = self._clock.wall_ns() // 1_000_000
        self.statistics.record_success(rows_of(feeds), timing, wall_ms)

    def record_alone(self, requests: Sequence[tuple[int, Timing]], ago_s: float) -> None:
        """Count answered requests, by rows, that each ran alone; the last ended `ago_s` ago."""
        wall_ms = (self._clock.wall_ns() - int(ago_s * 1e9)) // 1_000_000
        self.statistics.record_alone(requests, wall_ms)

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """The model metadata of OIP v2."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [_tensor_metadata(spec) for spec in self._engine.inputs],
            "outputs": [_tensor_metadata(spec) for spec in self._engine.outputs],
        }

    def config(self) -> dict[str, Any]:
        """The model configuration as Triton shows it; with batching, `dims` leave out axis 0."""
        skipped = 1 if self.max_batch else 0
        config: dict[str, Any] = {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": self.max_batch,
            "version_policy": {"all": {}},
            "input": [_tensor_config(spec, skipped) for spec in self._engine.inputs],
            "output": [_tensor_config(spec, skipped) for spec in self._engine.outputs],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        }
        if self.options.batching is not None:
            delay_us = round(self.options.batching.max_delay_s * 1e6)
            config["dynamic_batching"] = {"max_queue_delay_microseconds": delay_us}
        if self.options.labels:
            config["labels"] = list(self.options.labels)
        return config


def rows_of(feeds: Feeds) -> int:
    """The batch size of one run: the first dimension of the first input, at least 1."""
    shape = next(iter(feeds.values())).shape
    return shape[0] if shape else 1


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _tensor_config(spec: TensorSpec, skipped: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _CONFIG_TYPES[spec.datatype],
        "dims": list(spec.shape[skipped:]),
    }


class Catalog:
    """The models one worker serves, each version loaded when first asked for.

    Those that were not used for longest are unloaded when the next one needs their memory. The set
    of models and versions is that of the start, but for what `load_anew` finds. Thread-safe.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str] | None = None,
        threads: int | None = None,
        clock: Clock | None = None,
        default_version: str | None = None,
        memory_bytes: int = 0,
    ) -> None:
        """Serve `names` of the repository at `root`, or all of it. Raises ModelNotFound.

        A request without a version gets `default_version`, which all of them have, or the highest.
        Models in memory have files of `memory_bytes` at most, all together; 0: no bound.
        """
        if not root.is_dir():
            raise ModelNotFound(f"model repository {root} is not a folder")
        found = list_models(root)
        missing = [name for name in names or () if name not in found]
        if missing:
            raise ModelNotFound(
                f"model {missing[0]!r} is not in {root}; it has {', '.join(found) or 'no models'}"
            )
        self._root = root
        self._threads = threads
        self._clock = clock or Clock()
        self._default_version = default_version
        self._memory_bytes = memory_bytes
        self._names = None if names is None else frozenset(names)
        self._versions = found if names is None else {name: found[name] for name in names}
        self._loaded: dict[tuple[str, str], Model] = {}
        self._failures: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Every model served, loaded or not."""
        return tuple(self._versions)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a model, the highest last; raises ModelNotFound."""
        if name not in self._versions:
            raise ModelNotFound(f"unknown model {name[:128]!r}; this worker serves {self._listed}")
        return self._versions[name]

    @property
    def _listed(self) -> str:
        return ", ".join(self._versions) or "no models"

    def resolve(self, name: str, version: str | None) -> tuple[str, str]:
        """The model and version meant; raises ModelNotFound. Touches memory only."""
        versions = self.versions(name)
        chosen = version or self._default_version or versions[-1]
        if chosen not in versions:
            raise ModelNotFound(
                f"model {name!r} has no version {chosen[:20]!r}; it has {', '.join(versions)}"
            )
        return name, chosen

    def loaded(self, name: str, version: str | None) -> Model | None:
        """The model if it is in memory already; raises ModelNotFound. Never blocks."""
        return self._loaded.get(self.resolve(name, version))

    def load(self, name: str, version: str | None = None) -> Model:
        """The model, loaded on first use (blocks).

        Raises ModelNotFound, BrokenModel, or NoRoom.
        """
        key = self.resolve(name, version)
        with self._lock:
            model = self._loaded.get(key)
            if model is None:
                self._refuse_known_failure(key)
                model = self._loaded[key] = self._load(key)
        return model

    def _refuse_known_failure(self, key: tuple[str, str]) -> None:
        if key in self._failures:
            raise BrokenModel(self._failures[key])

    def load_anew(self, name: str) -> Model:
        """Look for the model on disk again and load it, though it failed before; raises as `load`.

        What is in memory already stays as it is.
        """
        versions = list_models(self._root).get(name)
        if versions is None or (self._names is not None and name not in self._names):
            raise ModelNotFound(f"unknown model {name[:128]!r}; this worker serves {self._listed}")
        with self._lock:
            self._versions[name] = versions
            for key in [key for key in self._failures if key[0] == name]:
                del self._failures[key]
        return self.load(name)

    def unload(self, name: str) -> None:
        """Forget all versions of a model; runs under way end as they would. Raises ModelNotFound.

        The next request for it loads it again.
        """
        with self._lock:
            for version in self.versions(name):
                self._loaded.pop((name, version), None)

    def _load(self, key: tuple[str, str]) -> Model:
        try:
            file = find_model(self._root, *key)
            self._make_room(file)
            return Model(file, self._threads, self._clock)
        except BrokenModel as error:
            self._failures[key] = str(error)
            raise

    def _make_room(self, file: ModelFile) -> None:
        if not self._memory_bytes:
            return
        if file.size_bytes > self._memory_bytes:
            raise NoRoom(
                f"model {file.name!r} has {file.size_bytes} bytes, and this worker "
                f"{self._memory_bytes} for models"
            )
        taken = sum(model.size_bytes for model in self._loaded.values())
        by_use = sorted(self._loaded.items(), key=lambda item: item[1].last_used_ms)
        for key, model in by_use:
            if taken + file.size_bytes <= self._memory_bytes:
                return
            del self._loaded[key]
            taken -= model.size_bytes

    def index(self) -> list[dict[str, str]]:
        """The repository index: every version with its state."""
        return [
            self._index_entry(name, version)
            for name, versions in self._versions.items()
            for version in versions
        ]

    def _index_entry(self, name: str, version: str) -> dict[str, str]:
        key = (name, version)
        entry = {"name": name, "version": version}
        if key in self._loaded:
            return {**entry, "state": "READY", "reason": ""}
        return {**entry, "state": "UNAVAILABLE", "reason": self._failures.get(key, "not loaded")}

    def loaded_models(self) -> list[Model]:
        """The models in memory."""
        return list(self._loaded.values())
