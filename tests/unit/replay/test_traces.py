"""Every trace format from a small sample, and what is done with rows that are wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from router.replay.arrivals import Arrivals, Dropped, Names, Span, TraceError, joined
from router.replay.traces import TraceOptions, open_trace, seconds
from router.telemetry.logs import AccessRecord, encode_line

_CSV = "timestamp,model,payload_bytes,tenant,deadline_ms\n100.5,a,300,t1,250\n"
_LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
_FUNCTIONS = "HashOwner,HashApp,HashFunction,Trigger,480,481\no,a,f1,timer,0,3\n"
SAMPLES = {
    "csv": (f"{_CSV}2026-11-01T00:00:00Z,b,1,,\n", 2),
    "counts": ("t_s,model,count\n0,a,5\n0,b,1\n30,a,0\n60,a,7\n", 13),
    "azure-llm": (f"{_LLM}2023-11-16 18:17:04.0319600,3180,8\n", 2),
    "worldcup": ("period,count\n1998-04-30 21:30:00,2\n1998-04-30 21:31:00,11\n", 13),
    "azure-functions": (f"{_FUNCTIONS}o,a,f2,http,4,0\n", 7),
}


def read(
    path: Path, options: TraceOptions | None = None, format: str | None = None
) -> tuple[Arrivals, Names, Dropped]:
    names, dropped = Names(), Dropped()
    trace = open_trace(path, options or TraceOptions(), format)
    blocks = list(trace.read(names, dropped))
    return joined(blocks), names, dropped


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("format", SAMPLES)
def test_formats_are_recognised_and_counted(tmp_path: Path, format: str, zipped: bool) -> None:
    text, requests = SAMPLES[format]
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert open_trace(path, TraceOptions()).format == format
    arrivals, _, dropped = read(path)
    assert len(arrivals) == requests
    assert (np.diff(arrivals.at) >= 0).all()
    assert arrivals.at[0] == 0
    assert dropped.total == 0


def test_csv_columns_arrive(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp,model,payload_bytes,tenant,deadline_ms\n1,a,300,t1,250\n2,b,,,\n")
    arrivals, names, _ = read(path)
    assert arrivals.at.tolist() == [0.0, 1.0]
    assert arrivals.payload_bytes.tolist() == [300, -1]
    assert arrivals.deadline_s[0] == 0.25
    assert np.isnan(arrivals.deadline_s[1])
    senders = list(names.senders)
    assert [senders[number].tenant for number in arrivals.sender] == ["t1", None]
    assert list(names.models) == ["a", "b"]


def test_arrivals_are_inside_their_interval(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t_s,model,count\n" + "".join(f"{60 * n},a,{50 * n}\n" for n in range(1, 6)))
    arrivals, _, _ = read(path, TraceOptions(span=Span(60, is_absolute=True)))
    per_interval = np.bincount(arrivals.at.astype(int) // 60)
    assert per_interval.tolist() == [50, 100, 150, 200, 250]


def record(**facts: object) -> AccessRecord:
    usual: dict[str, object] = {
        "request_id": "r", "protocol": "oip", "model": "m", "version": None, "tenant": None,
        "payload_bytes": 10, "backend": "pool", "reason": "rule", "rule": "x", "endpoint": "e",
        "attempts": 1, "status": 200, "outcome": "ok", "cold_start": None, "total_ms": 100.0,
        "upstream_ms": 1.0, "queue_ms": 0.0, "deadline_ms": None, "cost_usd": 0.0,
    }  # fmt: skip
    return AccessRecord(**{**usual, **facts})  # type: ignore[arg-type]


def test_the_access_log_is_put_in_the_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    lines = [
        encode_line(record(model="late", total_ms=500.0), 1000.6),
        encode_line(record(model="early", total_ms=900.0, deadline_ms=2000.0), 1000.9),
        encode_line(record(outcome="client_error"), 1001.0),
        encode_line(record(payload_bytes=0), 1001.0),
        b"not json\n",
        b"\n",
    ]
    path.write_bytes(b"".join(lines))
    arrivals, names, dropped = read(path)
    known = list(names.models)
    assert [known[number] for number in arrivals.model] == ["early", "late"]
    assert arrivals.at.tolist() == pytest.approx([0.0, 0.1], abs=0.002)
    assert arrivals.deadline_s[0] == 2.0
    assert dropped.total == 3
    assert any("client_error" in reason and "line 3" in reason for reason in dropped.told())
    assert any("access log" in reason and "line 5" in reason for reason in dropped.told())


BAD_ROWS = {
    "no number": "x,a,1",
    "not finite": "nan,a,1",
    "negative size": "5,a,-1",
    "absurd size": "5,a,99999999999999999999",
    "too few columns": "5",
    "binary": "\x00\x01,\x02,\x03",
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_counted_and_the_others_kept(tmp_path: Path, row: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"timestamp,model,payload_bytes\n4,a,1\n{row}\n6,a,1\n")
    arrivals, _, dropped = read(path)
    assert len(arrivals) == 2
    assert dropped.total == 1
    assert list(dropped.first_lines.values()) == [3]


def test_rows_far_out_of_order_are_dropped_and_named(tmp_path: Path) -> None:
    rows = [f"{n},a,1" for n in range(1000, 71_000)] + ["5,a,1"]
    path = tmp_path / "t.csv"
    path.write_text("timestamp,model,payload_bytes\n" + "\n".join(rows) + "\n")
    arrivals, _, dropped = read(path)
    assert len(arrivals) == 70_000
    assert dropped.counts == {"out of order by more than 60 s": 1}


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.5])
@pytest.mark.parametrize("format", ["csv", "counts"])
def test_scaling_multiplies_the_requests(tmp_path: Path, format: str, scale: float) -> None:
    path = tmp_path / "t.csv"
    if format == "csv":
        path.write_text("timestamp,model\n" + "".join(f"{n},a\n" for n in range(4000)))
    else:
        path.write_text("t_s,model,count\n" + "".join(f"{n},a,4\n" for n in range(1000)))
    arrivals, _, _ = read(path, TraceOptions(scale=scale))
    assert len(arrivals) == pytest.approx(4000 * scale, rel=0.06)
    assert (np.diff(arrivals.at) >= 0).all()


SPANS = {
    "from the start": (Span(), [0, 10, 20, 30]),
    "counted from the first": (Span(10, 25), [0, 10]),
    "by the trace's own time": (Span(1010, 1030, is_absolute=True), [0, 10]),
    "before it began": (Span(-50, 5), [50]),
    "after it ended": (Span(100, 200), []),
}


@pytest.mark.parametrize(("span", "expected"), SPANS.values(), ids=SPANS)
def test_a_span_is_cut_out_and_counted_from_its_start(
    tmp_path: Path, span: Span, expected: list[int]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp,model\n1000,a\n1010,a\n1020,a\n1030,a\n")
    names, dropped = Names(), Dropped()
    blocks = open_trace(path, TraceOptions(span=span)).read(names, dropped)
    assert [at for block in blocks for at in block.at.tolist()] == expected


MINUTES = [70_000] * 5 + [1_000_000_000] * 3 + [500]
LONG_AGO = {
    "counts": "t_s,model,count\n" + "".join(f"{60 * n},m,{c}\n" for n, c in enumerate(MINUTES)),
    "worldcup": "period,count\n"
    + "".join(f"1998-05-01 00:{n:02d}:00,{count}\n" for n, count in enumerate(MINUTES)),
    "azure functions": f"HashFunction,Trigger,{','.join(map(str, range(len(MINUTES))))}\n"
    f"m,x,{','.join(map(str, MINUTES))}\n",
}


@pytest.mark.parametrize("text", LONG_AGO.values(), ids=LONG_AGO)
def test_what_comes_before_the_span_is_not_drawn(tmp_path: Path, text: str) -> None:
    """Drawing it would take minutes: three thousand millions."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    arrivals, _, _ = read(path, TraceOptions(span=Span(480.0)))
    assert 495 <= len(arrivals) <= 500


def test_servegen_windows_have_their_rate_and_burstiness(tmp_path: Path) -> None:
    rows = [
        f"{client},{window},{2.0},3.0,Gamma,0.2,1.0"
        for client in range(2)
        for window in range(0, 60_000, 600)
    ]
    path = tmp_path / "t.csv"
    header = "client,window_start_s,rate_rps,cv,arrival_dist,param1,param2"
    path.write_text("\n".join([header, *rows]) + "\n")
    arrivals, _, _ = read(path)
    assert len(arrivals) == pytest.approx(4.0 * 60_000, rel=0.05)
    counts = np.bincount(arrivals.at.astype(int))
    # Bursts: a Poisson process would have a variance equal to its mean.
    assert counts.var() > 2 * counts.mean()


def test_the_same_seed_reads_the_same_and_another_does_not(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(SAMPLES["counts"][0])
    first, again, other = (read(path, TraceOptions(seed=seed))[0].at.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


NOT_TRACES = {
    "unknown columns": b"a,b,c\n1,2,3\n",
    "nothing": b"",
    "a truncated gzip": gzip.compress(b"timestamp,model\n" * 1000)[:20],
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", NOT_TRACES.values(), ids=NOT_TRACES)
def test_files_that_are_no_traces_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(TraceError):
        open_trace(path, TraceOptions())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        open_trace(tmp_path / "none", TraceOptions())


def test_times_are_numbers_or_iso_in_utc() -> None:
    assert seconds("12.5") == 12.5
    assert seconds("1970-01-01T00:01:00") == 60.0
    assert seconds("1970-01-01T01:00:00+01:00") == 0.0


def test_arrivals_of_which_only_a_count_is_known_are_as_bursty_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t_s,model,count\n0,a,4000\n600,a,4000\n")
    for burstiness in (1.0, 4.0):
        arrivals, _, _ = read(path, TraceOptions(burstiness=burstiness))
        gaps = np.diff(arrivals.at)
        assert len(arrivals) == 8000
        assert (gaps >= 0).all()
        assert arrivals.at[-1] <= 1200
        assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.1)
