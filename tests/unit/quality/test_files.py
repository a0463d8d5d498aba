"""Baselines and samples in files: what was written is read again, and nonsense is refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from router.cli import main
from router.domain.request import AnswerForm
from router.quality.drift import Columns, DriftParams, baseline_of
from router.quality.files import (
    BaselineError,
    baseline_from_samples,
    decode,
    encode,
    lines_of,
    read_baseline,
)
from router.quality.kept import samples_in, watch
from router.quality.samples import KeepParams, Origin, QualityParams, Sample, read
from router.quality.store import SampleStore
from router.quality.tensors import Answer

CONFIG = """
models:
  - name: m
    slo: {latency_ms: 100}
    pool: {kind: static, urls: ["http://127.0.0.1:1"]}
    quality: {baseline: {first: 100}, window: {samples: 100}, false_alarms_per_week: 5}
"""


def columns(values):
    found = Columns(64)
    for value in values:
        found.add({"in:x": float(value), "out:class": float(value > 0)})
    return found


@pytest.fixture
def baseline():
    return baseline_of(columns(np.random.default_rng(1).normal(size=300)), "here", 5.0)


def lines(number, shift=0.0):
    values = np.random.default_rng(number).normal(size=number) + shift
    return [
        {"at": 60.0 * at, "model": "m", "version": "1", "features": {"in:x": value}}
        for at, value in enumerate(values.tolist())
    ]


def written(path, entries):
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


def test_a_baseline_is_read_as_it_was_written(baseline):
    again = decode(encode(baseline))
    assert (again.source, again.made_at, again.samples) == ("here", 5.0, 300)
    for name, known in baseline.features.items():
        assert again.features[name].bins == known.bins
        assert (again.features[name].counts == known.counts).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.pop("features"),
        lambda form: form.update(more=1),
        lambda form: form["features"]["in:x"].update(counts=[1]),
        lambda form: form["features"]["in:x"].update(counts=[-1] * 35),
        lambda form: form["features"]["in:x"]["points"].reverse(),
        lambda form: form["features"]["in:x"].update(scale="feet"),
        lambda form: form["features"].update({f"f{n}": {} for n in range(2000)}),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused(baseline, change):
    form = json.loads(encode(baseline))
    change(form)
    with pytest.raises(BaselineError):
        decode(json.dumps(form).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_what_is_no_baseline_is_refused(text, tmp_path):
    (tmp_path / "b.json").write_bytes(text)
    with pytest.raises(BaselineError):
        read_baseline(tmp_path / "b.json")
    with pytest.raises(BaselineError):
        list(lines_of(tmp_path / "nowhere.jsonl"))


def test_a_long_file_makes_a_bounded_baseline():
    samples = ({"in:x": float(number)} for number in range(25_000))
    made = baseline_from_samples(samples, "f", 0.0, 10)
    assert 5000 <= made.samples < 10_000
    assert made.features["in:x"].bins.high > 24_000


def test_samples_are_kept_within_their_bounds_and_without_what_is_masked(tmp_path):
    params = KeepParams(str(tmp_path / "kept"), 200_000, 1000.0, frozenset({"x"}))
    store = SampleStore(params, "a/b")
    request = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.25]}]}
    tensor = {"name": "y", "shape": [1, 500], "datatype": "FP32", "data": [0.5] * 500}
    answer = {"outputs": [tensor]}
    for number in range(130):
        sample = Sample(
            Origin("a/b", "1", "t"), f"r-{number}", AnswerForm.TENSORS, {},
            json.dumps(request).encode(), Answer(200, {}, json.dumps(answer).encode()),
            float(number),
        )  # fmt: skip
        store.keep(sample.origin, sample, read(sample, QualityParams(), 1))
    store.close()
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) > 1
    assert sum(path.stat().st_size for path in files) <= 200_000
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    last = json.loads(files[-1].read_text().splitlines()[-1])
    assert last["request_id"] == "r-129"
    assert last["inputs"]["x"]["data"] is None
    assert last["outputs"]["y"]["data"] == [0.5] * 500
    assert "in:x" not in last["features"]
    assert "0.25" not in files[-1].read_text()


def test_a_disk_that_takes_nothing_is_reported_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = SampleStore(KeepParams(str(tmp_path / "file" / "kept"), 1 << 20, 60.0), "m")
    sample = Sample(Origin("m", ""), "r", AnswerForm.PREDICTIONS, {}, b'{"instances":[1]}',
                    Answer(200, {}, b'{"predictions":[1]}'), 0.0)  # fmt: skip
    for _ in range(3):
        store.keep(sample.origin, sample, read(sample, QualityParams(), 1))
    assert len(caplog.records) == 1


def test_a_log_of_samples_shows_what_watching_would_have_found(tmp_path):
    log = written(tmp_path / "log.jsonl", lines(300) + lines(200, shift=2.0))
    params = {"m": QualityParams(first=200, drift=DriftParams(samples=100))}
    samples = samples_in(lines_of(log), QualityParams())
    ((key, found),) = watch(samples, params, {}).items()
    assert key == ("m", "1")
    assert {alarm.feature for alarm in found.alarms} == {"in:x"}


def test_pairs_of_bodies_are_samples_too():
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}
    pairs: list[dict[str, object]] = [
        {"request": {"inputs": [tensor]}, "response": {"outputs": [{**tensor, "name": "y"}]}},
        {"request": {"instances": [3]}, "response": {"predictions": [4]}},
        {"request": {"messages": [{"content": "ab"}]}, "response": {"choices": [{"text": "c"}]}},
    ]
    found = [sample.features for sample in samples_in(enumerate(pairs), QualityParams())]
    assert found[0] == {"out:y": 3.0, "in:x": 3.0}
    assert found[1] == {"out:predictions": 4.0, "in:instances": 3.0}
    assert found[2] == {"in:characters": 2.0, "in:messages": 1.0, "out:characters": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"request": 1, "response": 2},
        {"request": {"inputs": 3}, "response": {}},
        {"features": {"x": "text"}},
        {"features": {"x": 1}, "at": "noon"},
    ],
)
def test_a_line_that_is_no_sample_is_refused_with_its_number(line):
    with pytest.raises(BaselineError, match="7"):
        list(samples_in([(7, line)], QualityParams()))


def test_the_commands_make_a_baseline_and_judge_a_log(tmp_path):
    log = written(tmp_path / "log.jsonl", lines(300))
    (tmp_path / "router.yaml").write_text(CONFIG)
    run, config = CliRunner().invoke, str(tmp_path / "router.yaml")
    out = tmp_path / "b.json"
    made = run(main, ["quality", "baseline", "--model", "m", "--from", str(log), "--config", config,
                      "--out", str(out)])  # fmt: skip
    assert (made.exit_code, made.output) == (0, f"{out}: 300 samples, 1 features\n")
    assert read_baseline(out).samples == 300
    fine = run(main, ["replay", "--quality", "--config", config, "--trace", str(log)])
    assert fine.exit_code == 0, fine.output
    written(log, lines(300) + lines(200, shift=2.0))
    bad = run(main, ["replay", "--quality", "--config", config, "--trace", str(log), "--json",
                     str(tmp_path / "out.json")])  # fmt: skip
    assert bad.exit_code == 1
    (shown,) = json.loads((tmp_path / "out.json").read_text())
    assert shown["alarms"][0]["feature"] == "in:x"
    missing = run(main, ["quality", "baseline", "--model", "m", "--from", str(tmp_path / "no")])
    assert missing.exit_code == 1
    assert "No such file" in missing.output
