"""Puts together what a platform deploys: our worker's code, one model, the platform's own files.

    python deploy/serverless/bundle.py google --model magika --out build/google
    python deploy/serverless/bundle.py lambda --model magika --out build/magika.zip

Checks the sizes that the platform allows before anything is uploaded. Deploys nothing.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = HERE.parents[1] / "workers"
LOCK = HERE.parent / "requirements" / "serve.txt"
REQUIREMENTS = HERE / "requirements.txt"
MIB = 1024 * 1024

# The parts of the worker that only its HTTP server needs.
SERVER_ONLY = {
    "batching.py",
    "http_connection.py",
    "http_front.py",
    "http_server.py",
    "lanes.py",
    "lifetime.py",
    "metrics.py",
    "pace.py",
}
# The module that answers; empty where it is among the platform's own files.
FRONTS = {
    "lambda": "lambda_handler.py",
    "lambda/image": "lambda_handler.py",
    "google": "functions_framework.py",
    "container": "functions_framework.py",
    "azure": "azure.py",
    "knative/func": "",
}
# Installed with some packages and never used by a running function.
UNUSED = (
    "*/tests", "*/test", "numpy/*/tests", "bin", "onnxruntime/tools",
    "onnxruntime/transformers", "onnxruntime/quantization", "onnxruntime/datasets",
)  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """The largest size of a part, in bytes, and what to do about a larger one."""

    part: str
    max_bytes: int
    advice: str


LAMBDA_UNZIPPED = Limit("the unzipped function", 250 * MIB, "deploy it as a container image")
# An image may have 10 GB; its base and the installed packages have less than 1.
LAMBDA_IMAGE = Limit("the model", 9 * 1024 * MIB, "no Lambda image can hold it")
LAMBDA_DIRECT = Limit("the zip file", 50 * MIB, "upload it to S3 first, as `sam deploy` does")


def main(argv: Sequence[str] | None = None) -> int:
    """Build one bundle; 0 done, 1 too large, 2 usage."""
    arguments = _parser().parse_args(argv)
    model = arguments.repository / arguments.model
    if not model.is_dir():
        sys.stderr.write(
            f"{model}: no such model; a repository has NAME/VERSION/model.onnx, and"
            " `make .demo/.models` makes one with the demo's models\n"
        )
        return 2
    if arguments.platform == "lambda/image" and (problem := over(size_bytes(model), LAMBDA_IMAGE)):
        sys.stderr.write(f"{problem}\n")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        lay_out(folder, arguments.platform, model)
        if arguments.platform != "lambda":
            return _finish_folder(folder, arguments.out)
        install(folder, arguments.python, arguments.arch)
        return _finish_zip(folder, arguments.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("platform", choices=sorted(FRONTS))
    parser.add_argument("--repository", type=Path, default=Path(".demo/models"))
    parser.add_argument("--model", required=True, help="a folder of the repository")
    parser.add_argument("--out", type=Path, required=True, help="a folder; for lambda a zip file")
    parser.add_argument("--python", default="3.13", help="Python of the Lambda runtime")
    parser.add_argument("--arch", default="x86_64", choices=["x86_64", "arm64"])
    return parser


def lay_out(folder: Path, platform: str, model: Path) -> None:
    """The bundle without installed packages."""
    shutil.copytree(model, folder / "models" / model.name)
    code = folder / "workers"
    code.mkdir()
    skipped = SERVER_ONLY | set(FRONTS.values()) - {FRONTS[platform]}
    for file in sorted(WORKERS.glob("*.py")):
        if file.name not in skipped:
            shutil.copy(file, code)
    for file in _own_files(platform):
        shutil.copy(file, folder)
    lines = [REQUIREMENTS.read_text()]
    if (extra := HERE / platform / "requirements.txt").exists():
        lines.append(extra.read_text())
    (folder / "requirements.txt").write_text("".join(lines))


def _own_files(platform: str) -> Iterator[Path]:
    for name in ("main.py", "func.py", "function_app.py", "host.json", "Dockerfile"):
        if (file := HERE / platform / name).exists() and platform != "lambda":
            yield file


def install(folder: Path, python: str, arch: str) -> None:
    """Install the packages for a Lambda runtime into the bundle, and drop what it never uses."""
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[arch]
    platforms = [f"manylinux{tag}_{machine}" for tag in ("_2_28", "_2_27", "_2_17", "2014")]
    subprocess.run(  # noqa: S603  a fixed command with checked options
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            "--no-compile",  # what is compiled has dates in it, and the bundle differs each time
            *("--target", str(folder), "--only-binary", ":all:", "--python-version", python),
            *(part for tag in platforms for part in ("--platform", tag)),
            *("--implementation", "cp", "-r", str(folder / "requirements.txt")),
        ],
        check=True,
    )
    for pattern in UNUSED:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def size_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def over(size: int, limit: Limit) -> str:
    """What to say about a size over the limit; empty if it is within."""
    if size <= limit.max_bytes:
        return ""
    return (
        f"{limit.part} has {size / MIB:.0f} MiB, over {limit.max_bytes / MIB:.0f} MiB:"
        f" {limit.advice}"
    )


def _finish_folder(folder: Path, out: Path) -> int:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out)
    sys.stdout.write(f"{out}: {size_bytes(out) / MIB:.1f} MiB without installed packages\n")
    return 0


def _finish_zip(folder: Path, out: Path) -> int:
    unzipped = size_bytes(folder)
    if problem := over(unzipped, LAMBDA_UNZIPPED):
        sys.stderr.write(f"{problem}\n")
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                # A fixed date: equal inputs give an equal zip, which AWS need not deploy again.
                entry = zipfile.ZipInfo(str(path.relative_to(folder)), (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o755 << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    zipped = out.stat().st_size
    sys.stdout.write(f"{out}: {zipped / MIB:.1f} MiB, {unzipped / MIB:.1f} MiB unzipped\n")
    if advice := over(zipped, LAMBDA_DIRECT):
        sys.stdout.write(f"{advice}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
