"""Samples kept on disk as they were read, where the configuration asks for that: JSON lines.

Bounded in bytes and age; tensors that are masked are never written. Nothing else of this package
stores what clients send. Blocks: not for the event loop.
"""

import logging
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from router.quality.samples import KeepParams, Origin, Sample, Seen
from router.quality.tensors import Tensor

_log = logging.getLogger(__name__)

_SEGMENTS = 8
"""What is kept goes by such parts of it."""
MAX_VALUES = 4096
"""Of a larger tensor no values are written."""


class SampleStore:
    """The samples of one model. A disk that does not take them is reported once."""

    def __init__(self, params: KeepParams, model: str) -> None:
        self._params = params
        self._prefix = quote(model, safe="")
        self._file: FileIO | None = None
        self._written = 0
        self._began = 0.0
        self._has_failed = False

    def keep(self, origin: Origin, sample: Sample, seen: Seen) -> None:
        """Write one sample."""
        line = msgspec.json.encode(self._line(origin, sample, seen)) + b"\n"
        try:
            self._segment(sample.at, len(line)).write(line)
        except OSError as error:
            if not self._has_failed:
                _log.error("samples of %s are not kept: %s", origin.model, error)
            self._has_failed = True
            self.close()
        else:
            self._written += len(line)
            self._has_failed = False

    def _line(self, origin: Origin, sample: Sample, seen: Seen) -> dict[str, Any]:
        mask = self._params.mask
        return {
            "at": sample.at,
            "model": origin.model,
            "version": origin.version,
            "side": origin.side,
            "request_id": sample.request_id,
            "features": {
                name: value if np.isfinite(value) else None
                for name, value in seen.features.items()
                if _tensor_of(name) not in mask
            },
            "inputs": _tensors(seen.inputs, mask),
            "outputs": _tensors(seen.outputs, mask),
        }

    def _segment(self, now: float, size: int) -> FileIO:
        """The file that is written now; the next one when it is full or old."""
        is_full = self._written + size > self._params.max_bytes // _SEGMENTS
        is_old = now - self._began > self._params.max_age_s / _SEGMENTS
        if self._file is not None and (is_full or is_old):
            self.close()
        if self._file is None:
            folder = Path(self._params.folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._sweep(folder, now)
            path = folder / f"{self._prefix}.{now:015.3f}.{os.getpid()}.jsonl"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file, self._written, self._began = FileIO(handle, "a"), 0, now
        return self._file

    def _sweep(self, folder: Path, now: float) -> None:
        """Remove what is too old, and the oldest of what is too much."""
        files = sorted(folder.glob(f"{self._prefix}.*.jsonl"), reverse=True)
        left = self._params.max_bytes * (_SEGMENTS - 1) // _SEGMENTS
        for path in files:
            found = path.stat()
            left -= found.st_size
            if left < 0 or now - found.st_mtime > self._params.max_age_s:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the next sample begins another one."""
        if self._file is not None:
            self._file.close()
        self._file = None


def _tensor_of(feature: str) -> str:
    """The tensor that a feature is of."""
    return feature.partition(":")[2].partition("#")[0].partition("[")[0]


def _tensors(tensors: Mapping[str, Tensor], mask: frozenset[str]) -> dict[str, Any]:
    return {
        name[:200]: {
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "data": None if name in mask else _values(tensor),
        }
        for name, tensor in tensors.items()
    }


def _values(tensor: Tensor) -> list[Any] | None:
    data = tensor.data
    if len(data) > MAX_VALUES:
        return None
    if isinstance(data, list):
        return [text.decode(errors="replace") for text in data]
    if np.issubdtype(data.dtype, np.floating):
        return [float(value) if np.isfinite(value) else None for value in data]
    return data.tolist()  # type: ignore[no-any-return]
