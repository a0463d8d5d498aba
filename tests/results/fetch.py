"""`python -m tests.results.fetch FOLDER`: downloads the public traces and brings them into shape.

Every file comes from a pinned commit, and what is made of it must have a known digest. Licences and
origins are in RESULTS.md; the traces stay out of this repository.
"""

import csv
import gzip
import hashlib
import io
import sys
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.results.cases import AZURE, AZURE_LLM, LAMBDA, SERVEGEN, WORLDCUP

ORIGIN = "https://raw.githubusercontent.com"
_TIMEOUT_S = 60.0
_MOST_BYTES = 64 << 20
_WORLDCUP_MINUTES = 86_400
_RUNS = (
    "2020-04-24_17-53-33", "2020-05-17_04-13-06", "2020-05-23_20-42-58", "2020-05-26_01-31-35",
    "2020-05-28_01-57-40", "2020-06-04_23-02-14", "2020-06-06_22-39-19", "2020-06-09_01-04-58",
    "2020-06-10_22-20-08", "2020-06-13_23-39-35", "2020-06-18_23-36-37",
)  # fmt: skip
_CLIENTS = 162


class FetchError(Exception):
    """A trace cannot be had as it should be; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A trace: where its parts are, what is made of them, and the SHA-256 of that."""

    file: str
    folder: str
    parts: tuple[str, ...]
    make: Callable[[Sequence[bytes]], bytes]
    digest: str


def _first(parts: Sequence[bytes]) -> bytes:
    return parts[0]


def _minutes(parts: Sequence[bytes]) -> bytes:
    """The heading and the first 60 days."""
    return b"".join(parts[0].splitlines(keepends=True)[: 1 + _WORLDCUP_MINUTES])


def _calls(parts: Sequence[bytes]) -> bytes:
    """The columns that are used, of all runs; microseconds will do."""
    rows: list[Sequence[Any]] = [
        ("run", "is_cold", "inst_id", "client_start_time", "client_elapsed_s", "aws_duration_ms")
    ]
    for run, part in zip(_RUNS, parts, strict=True):
        rows += [
            (
                f"res-01-{run}", int(row["is_cold"] == "True"), row["inst_id"],
                row["client_start_time"], row["client_elapsed_time"][:8],
                row["aws_duration"],
            )
            for row in csv.DictReader(io.StringIO(part.decode()))
        ]  # fmt: skip
    return _csv(rows)


def _streams(parts: Sequence[bytes]) -> bytes:
    """All clients in one file, numbers cut to what matters."""
    rows: list[Sequence[Any]] = [
        ("client", "window_start_s", "rate_rps", "cv", "arrival_dist", "param1", "param2")
    ]
    for client, part in enumerate(parts):
        rows += [
            (client, start, f"{float(rate):.6g}", cv[:9], kind, first[:10], second[:10])
            for start, rate, cv, kind, first, second in csv.reader(io.StringIO(part.decode()))
        ]
    return _csv(rows)


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


SOURCES = (
    Source(
        AZURE_LLM,
        "Azure/AzurePublicDataset/b469a113cedca53ddc3bdea71a143dc4b7d8700c/data",
        (AZURE_LLM,),
        _first,
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
    ),
    Source(
        AZURE,
        "vhive-serverless/invitro/e9b57199e58bf4021ab6e61ee34846012c1ff2fa/data/traces/100",
        ("invocations.csv",),
        _first,
        "002e124025d2f7cc81867cf5e48809bec4c853f1728d7874db46433e5d289305",
    ),
    Source(
        WORLDCUP,
        "nimamahmoudi/worldcup98-dataset/82460213f0d5a86fa57b6d4b0b5f260e606e713b",
        ("invocation_count.csv",),
        _minutes,
        "77838f5e4f20fbfc231f35680e2431d8b1d6cba75fcc35e421a0cf51b82d61be",
    ),
    Source(
        LAMBDA,
        "pacslab/serverless-performance-modeling/4b889700542848bf2fb6a737c6cdf6285f18a9ca"
        "/experiments/results",
        tuple(f"res-01-{run}.csv" for run in _RUNS),
        _calls,
        "56588f4fb8c223ba643ca262eeface385d8bdfc7edf8bc091cc122b3114277ef",
    ),
    Source(
        SERVEGEN,
        "alibaba/ServeGen/f891d1189eb32b3868dfc443800c4150548c282a/data/language/m-large",
        tuple(f"chunk-{client}-trace.csv" for client in range(_CLIENTS)),
        _streams,
        "77ddc3cb65e68a7874db4a84e5c705165256dd5c99eb9950f0eb5342e3608e4c",
    ),
)


def fetch(source: Source, folder: Path, origin: str = ORIGIN) -> None:
    """Write one trace, gzipped where its name says so. Raises FetchError."""
    parts = [_download(f"{origin}/{source.folder}/{part}") for part in source.parts]
    content = source.make(parts)
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.digest:
        raise FetchError(f"{source.file}: SHA-256 {digest} is not the expected {source.digest}")
    is_gzip = source.file.endswith(".gz")
    (folder / source.file).write_bytes(gzip.compress(content, mtime=0) if is_gzip else content)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read(_MOST_BYTES + 1)
    except OSError as error:
        raise FetchError(f"{url}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise FetchError(f"{url}: longer than {_MOST_BYTES} bytes")
    return content


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--origin", default=ORIGIN, show_default=True, help="Where the repositories are.")
def main(folder: Path, origin: str) -> None:
    """Download the public traces that the results are made of, about 6 MB, into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        if (folder / source.file).exists():
            click.echo(f"{source.file}: there already")
            continue
        try:
            fetch(source, folder, origin)
        except FetchError as error:
            click.echo(str(error), err=True)
            sys.exit(1)
        click.echo(f"{source.file}: {', '.join(source.folder.split('/')[:2])}")


if __name__ == "__main__":
    main()
