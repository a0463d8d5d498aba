"""What needs a package that is not installed is refused with the command that brings it."""

import sys
from typing import Any

import pytest
import yaml

from tests.unit.settings.loading import problems_of

LOCAL = {"serverless": {"kind": "local"}}
PROCESS = {"pool": {"kind": "process"}}
OTHER_WORKER = {"pool": {"kind": "process", "command": ["serve", "{port}"]}}


@pytest.mark.parametrize(
    ("module", "model", "extra"),
    [
        ("onnxruntime", PROCESS, "worker"),
        ("onnxruntime", OTHER_WORKER, None),
        ("awslambdaric", LOCAL, "lambda"),
        ("aiodocker", {"pool": {"kind": "docker", "image": "x"}}, "docker"),
        (
            "kubernetes_asyncio",
            {"pool": {"kind": "kubernetes", "namespace": "n", "service": "s", "deployment": "d"}},
            "kubernetes",
        ),
    ],
    ids=["bundled worker", "another worker", "local function", "docker", "kubernetes"],
)
def test_a_kind_without_its_package(
    monkeypatch: pytest.MonkeyPatch, module: str, model: dict[str, Any], extra: str | None
):
    text = yaml.safe_dump({"models": [{"name": "m", "slo": {"latency_ms": 100}, **model}]})
    assert problems_of(text) == []
    monkeypatch.setitem(sys.modules, module, None)
    told = [f'pip install "hybrid-router[{extra}]"' in problem for problem in problems_of(text)]
    assert told == ([] if extra is None else [True])


def test_tracing_without_its_package(monkeypatch: pytest.MonkeyPatch):
    models = [{"name": "m", "slo": {"latency_ms": 100}, **OTHER_WORKER}]
    on, off = (
        yaml.safe_dump({"models": models, "tracing": {"endpoint": endpoint}})
        for endpoint in ("http://collector:4318/v1/traces", "")
    )
    assert problems_of(on) == []
    monkeypatch.setitem(
        sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None
    )
    (told,) = problems_of(on)
    assert "tracing.endpoint" in told
    assert 'pip install "hybrid-router[otel]"' in told
    assert problems_of(off) == []


def test_a_bucket_of_jobs_without_its_package(monkeypatch: pytest.MonkeyPatch):
    models = [{"name": "m", "slo": {"latency_ms": 100}, **OTHER_WORKER}]
    bucket, folder, secret = (
        yaml.safe_dump({"models": models, "jobs": {"directory": "jobs", "objects": objects}})
        for objects in ("s3://bucket/prefix", "", "s3://key:secret@bucket")
    )
    assert problems_of(bucket) == []
    (refused,) = problems_of(secret)
    assert "jobs.objects" in refused
    monkeypatch.setitem(sys.modules, "obstore", None)
    (told,) = problems_of(bucket)
    assert 'pip install "hybrid-router[objects]"' in told
    assert problems_of(folder) == []


def test_settings_do_not_load_an_inference_runtime(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.delitem(sys.modules, "awslambdaric", raising=False)
    model = {"name": "m", "slo": {"latency_ms": 100}, **PROCESS, **LOCAL}
    assert problems_of(yaml.safe_dump({"models": [model]})) == []
    assert not {"onnxruntime", "awslambdaric"} & sys.modules.keys()
