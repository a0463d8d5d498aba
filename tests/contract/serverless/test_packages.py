"""What is deployed to AWS, with the tools that judge it: the template, and the zip's real size."""

import asyncio
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.fakes.models import write_identity
from tests.fakes.platform_tools import ROOT, bundle, tool_environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

TEMPLATE = ROOT / "deploy" / "serverless" / "lambda" / "template.yaml"
TRANSLATE = ROOT / "tests" / "data" / "sam_translate.py"
MIB = 1024 * 1024


def lint(template: Path, folder: Path) -> str:
    """What AWS's linter says of what AWS's translator makes of the template."""
    tools = tool_environment("sam", "cfn-lint==1.58.0", "aws-sam-translator==1.115.0")
    translated = folder / "translated.json"
    subprocess.run(
        [str(tools / "python"), str(TRANSLATE), str(template), str(translated)],
        env={"AWS_DEFAULT_REGION": "us-east-1"},
        check=True,
        timeout=60,
    )
    regions = ["us-east-1", "eu-central-1"]
    # The path of the zip is a parameter, and not in the translation any more.
    command = [str(tools / "cfn-lint"), str(translated), "-i", "W2001", "--regions", *regions]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode == 0) is (done.stdout == "")
    return done.stdout


def test_the_sam_template_is_valid(tmp_path: Path) -> None:
    assert lint(TEMPLATE, tmp_path) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("Timeout: 30", "Timeout: 901", "901 is greater than the maximum"),
        ("!GetAtt Function.Arn", "!GetAtt Functions.Arn", "'Functions' is not one of"),
    ],
    ids=["a value that Lambda does not take", "a name that does not exist"],
)
def test_the_linter_would_notice(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    text = TEMPLATE.read_text()
    assert right in text
    (tmp_path / "template.yaml").write_text(text.replace(right, wrong))
    assert told in lint(tmp_path / "template.yaml", tmp_path)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
async def test_a_zip_leaves_room_for_a_model(tmp_path: Path, arch: str) -> None:
    """Lambda unpacks 250 MiB; the advice of `check` counts on 120 MiB for the model."""
    write_identity(tmp_path / "models", "echo")
    out = await asyncio.to_thread(
        bundle, "lambda", tmp_path / "models", "echo", tmp_path / "echo.zip", "--arch", arch
    )
    with zipfile.ZipFile(out) as archive:
        unzipped = sum(entry.file_size for entry in archive.infolist())
        compiled = [name for name in archive.namelist() if name.endswith(".pyc")]
    assert not compiled, "two bundles of the same would differ"
    assert out.stat().st_size < 50 * MIB, "it could be uploaded without S3"
    assert unzipped < 130 * MIB
