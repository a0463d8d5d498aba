"""What `check` says of functions that will probably not work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli import main
from router.commands.platform_check import platform_warnings
from router.settings.fit import LAMBDA_IMAGE_BYTES, RUNTIME_BYTES, unlikely_sizes
from router.settings.functions import AwsLambda, AzureFunction
from router.settings.loader import load
from router.settings.quantities import MIB
from tests.unit.settings.loading import load_config

AWS = "kind: aws_lambda, function: f, region: eu-central-1"
GOOGLE = "kind: google_function, url: 'https://x.run.app'"
AZURE_URL = "kind: azure_function, url: 'https://x.azurewebsites.net'"
AZURE = f"{AZURE_URL}, key_file: {Path(__file__)}"


def config(serverless: str) -> str:
    return f"models: [{{name: m, slo: {{latency_ms: 100}}, serverless: {{{serverless}}}}}]\n"


@pytest.mark.parametrize(
    ("serverless", "told"),
    [
        (f"{AWS}, timeout: 1s, service_time_ms: 1001", "timeout: is shorter than service_time"),
        (f"{AWS}, timeout: 1s, service_time_ms: 1000", None),
        (f"{GOOGLE}, timeout: 2s, cold_start_ms: 2000", "timeout: is shorter than a cold call"),
        (f"{AZURE}, timeout: 2s, cold_start_ms: 2000", "timeout: is shorter than a cold call"),
        (f"{AWS}, timeout: 2s, cold_start_ms: 2000", None),
        (f"{AWS}, cold_start_ms: 10001", "cold_start_ms: is over 10 s"),
        (f"{AWS}, cold_start_ms: 10000", None),
        (f"{AWS}, max_concurrency: 1001", "max_concurrency: is over the 1000"),
        (f"{AWS}, max_concurrency: 1000", None),
        (f"{AZURE}, max_concurrency: 201", "max_concurrency: is over the 200"),
        (f"{GOOGLE}, max_concurrency: 1001", None),
        (AZURE, None),
        (AZURE_URL, "key_file: is not set, nor is identity.resource"),
        (f"{AZURE_URL}, identity: {{resource: 'api://models'}}", None),
        (AZURE.replace("https", "http"), "url: is not https"),
        (GOOGLE.replace("https", "http"), "url: is not https"),
        (GOOGLE.replace("https://x.run.app", "http://127.0.0.1:8080"), None),
    ],
)
def test_settings_that_cannot_be_true(serverless: str, told: str | None) -> None:
    warnings = [str(warning) for warning in load_config(config(serverless)).warnings]
    assert len(warnings) == (told is not None)
    if told is not None:
        assert f"models[0].serverless.{told.split(':', maxsplit=1)[0]}" in warnings[0]
        assert told.partition(": ")[2] in warnings[0]


def function(serverless: str) -> AwsLambda | AzureFunction:
    found = load_config(config(serverless)).settings.models[0].serverless
    assert isinstance(found, AwsLambda | AzureFunction)
    return found


@pytest.mark.parametrize(
    ("serverless", "model_bytes", "keys"),
    [
        (f"{AWS}, memory_mb: 512", 512 * MIB - RUNTIME_BYTES + 1, ["memory_mb", "kind"]),
        (f"{AWS}, memory_mb: 512", 100 * MIB, []),
        (f"{AWS}, memory_mb: 10240", 121 * MIB, ["kind"]),
        (f"{AWS}, memory_mb: 10240", LAMBDA_IMAGE_BYTES + 1, ["memory_mb", "kind"]),
        (f"{AZURE}, memory_mb: 1536", 1337 * MIB, ["memory_mb"]),
        (f"{AZURE}, memory_mb: 1536", 1336 * MIB, []),
    ],
    ids=["no memory", "small", "no room in a zip", "no room at all", "over Azure's", "at Azure's"],
)
def test_models_that_do_not_fit(serverless: str, model_bytes: int, keys: list[str]) -> None:
    assert [key for key, _ in unlikely_sizes(function(serverless), model_bytes)] == keys


def write(folder: Path, serverless: str, model_bytes: int) -> Path:
    version = folder / "models" / "m" / "1"
    version.mkdir(parents=True)
    with (version / "model.onnx").open("wb") as file:
        file.truncate(model_bytes)
    path = folder / "router.yaml"
    path.write_text(config(serverless))
    return path


def test_check_looks_at_the_model_files(tmp_path: Path) -> None:
    path = write(tmp_path, f"{AWS}, memory_mb: 256", 300 * MIB)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, "a warning is no error"
    assert "model m: serverless.memory_mb is too little: " in result.stderr
    assert "need 500 MiB" in result.stderr


def test_a_disabled_function_is_not_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, f"{AWS}, memory_mb: 256, enabled: false", 300 * MIB)
    assert platform_warnings(load(path, {}).settings) == []


@pytest.mark.parametrize(
    ("serverless", "told"),
    [
        (f"{GOOGLE}, credentials_file: /no/such/sa.json", "serverless.credentials_file"),
        (f"{AZURE_URL}, key_file: /no/such/key", "serverless.key_file"),
        (f"{AZURE}, tls: {{ca_file: /no/such/ca.pem}}", "serverless.tls.ca_file"),
        (AZURE, None),
        (GOOGLE, None),
    ],
    ids=["credentials", "key", "authorities", "a key that is there", "none needed"],
)
def test_a_file_that_is_not_there_is_named(serverless: str, told: str | None) -> None:
    warnings = platform_warnings(load_config(config(serverless)).settings)
    found = [text for text in warnings if "cannot be read here: No such file" in text]
    assert len(found) == (told is not None)
    assert told is None or f"model m: {told} " in found[0]


@pytest.mark.parametrize(
    ("serverless", "told"),
    [
        (AWS, "pip install 'hybrid-router[aws]'"),
        (f"{AWS}, auth: none", None),
        (f"{GOOGLE}, credentials_file: {Path(__file__)}", "pip install 'hybrid-router[google]'"),
        (GOOGLE, None),
    ],
    ids=["signing", "no signing", "a key file", "the metadata server"],
)
def test_a_missing_extra_is_named(
    serverless: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.commands.platform_check.is_installed", lambda _name: False)
    warnings = platform_warnings(load_config(config(serverless)).settings)
    assert len(warnings) == (told is not None)
    assert told is None or told in warnings[0]
