"""What `deploy/serverless` makes and says: it loads, it imports, it fits, it names what exists."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from router.settings.loader import load
from tests.fakes.models import write_identity

SERVERLESS = Path(__file__).resolve().parents[3] / "deploy" / "serverless"
ROUTER_FILES = sorted(SERVERLESS.glob("*/router.yaml"))
FRONTS = {
    "lambda/image": "import workers.lambda_handler",
    "google": "import main; main.infer",
    "container": "import main; main.infer",
    "knative/func": "import func; func.new()",
}


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle", SERVERLESS / "bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bundle"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_identity(models, "echo")
    return models


@pytest.mark.parametrize("file", ROUTER_FILES, ids=lambda file: file.parent.name)
def test_the_router_configurations_load(file: Path) -> None:
    loaded = load(file, {})
    assert loaded.warnings == ()
    assert loaded.settings.models[0].serverless is not None


def test_every_platform_has_a_configuration_and_three_commands() -> None:
    folders = {file.parent for file in SERVERLESS.glob("*/README.md")}
    assert folders == {file.parent for file in ROUTER_FILES}
    for folder in folders:
        (block,) = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        commands = [line for line in block.replace("\\\n", "").splitlines() if line]
        assert len(commands) == 3, folder
        assert commands[0].startswith("python deploy/serverless/bundle.py "), folder


@pytest.mark.parametrize("platform", FRONTS)
def test_a_bundle_imports_by_itself(
    bundle: ModuleType, repository: Path, tmp_path: Path, platform: str
) -> None:
    """Nothing of the checkout is needed, and nothing of the HTTP server is loaded."""
    out = tmp_path / "out"
    arguments = [platform, "--repository", str(repository), "--model", "echo", "--out", str(out)]
    assert bundle.main(arguments) == 0
    heavy = "{'aiohttp', 'redis', 'prometheus_client'} & set(sys.modules)"
    check = f"import sys; {FRONTS[platform]}; assert not {heavy}, sys.modules"
    subprocess.run(
        [sys.executable, "-c", check],
        cwd=out,
        env={**os.environ, "PYTHONPATH": "", "MODEL_REPOSITORY": "models", "MODEL_NAME": "echo"},
        check=True,
        timeout=30,
    )


def test_an_unknown_model_is_a_usage_error(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["google", "--repository", str(tmp_path), "--model", "nope", "--out", "x"]
    assert bundle.main(arguments) == 2
    told = capsys.readouterr().err
    assert "no such model" in told
    assert "make .demo/.models" in told, "how to get one"


def test_a_zip_over_the_limit_is_refused_before_it_is_made(
    bundle: ModuleType,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def install(folder: Path, _python: str, _arch: str) -> None:
        with (folder / "large").open("wb") as file:
            file.truncate(bundle.LAMBDA_UNZIPPED.max_bytes)

    monkeypatch.setattr(bundle, "install", install)
    out = tmp_path / "f.zip"
    arguments = ["lambda", "--repository", str(repository), "--model", "echo", "--out", str(out)]
    assert bundle.main(arguments) == 1
    assert "over 250 MiB: deploy it as a container image" in capsys.readouterr().err
    assert not out.exists()


def test_an_image_over_the_limit_is_refused(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    write_identity(models, "echo")
    with (models / "echo" / "1" / "large.data").open("wb") as file:
        file.truncate(bundle.LAMBDA_IMAGE.max_bytes)  # sparse: it takes no room
    arguments = ["lambda/image", "--repository", str(models), "--model", "echo", "--out", str(out)]
    assert bundle.main(arguments) == 1
    assert "no Lambda image can hold it" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("extra", "told"), [(0, False), (1, True)], ids=["at the limit", "over"])
def test_the_limit_itself_is_allowed(bundle: ModuleType, extra: int, *, told: bool) -> None:
    limit = bundle.LAMBDA_DIRECT
    assert bool(bundle.over(limit.max_bytes + extra, limit)) is told


def test_versions_are_those_of_the_lock(bundle: ModuleType) -> None:
    locked = set(bundle.LOCK.read_text().splitlines())
    pinned = {
        line for line in bundle.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")
    }
    assert pinned <= locked


def test_templates_name_the_workers_front_and_port() -> None:
    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's short forms as text."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")
    template = yaml.load((SERVERLESS / "lambda" / "template.yaml").read_text(), Loader)
    function = template["Resources"]["Function"]["Properties"]
    assert function["Handler"] == "workers.lambda_handler.handler"
    service = yaml.safe_load((SERVERLESS / "knative" / "service.yaml").read_text())
    (container,) = service["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == 8080
    stack = yaml.safe_load((SERVERLESS / "openfaas" / "stack.yml").read_text())
    ready = stack["functions"]["magika"]["annotations"]["com.openfaas.health.http.path"]
    assert ready == container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
