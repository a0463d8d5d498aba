"""A podman of our own: its store, its Docker API, and images built from `deploy/`.

No image registry is needed: the base image is a minimal Debian, made once and kept in `build/`.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORE = ROOT / "build" / "containers"
BASE = "localhost/hybrid-router-base:bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_CONFIG = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
"""


@dataclass(frozen=True)
class Podman:
    """The podman command on a store of its own."""

    store: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_CONF": str(self.store / "containers.conf")}

    def command(self, *arguments: str) -> list[str]:
        state = ("--root", str(self.store / "root"), "--runroot", str(self.store / "run"))
        return ["podman", *state, *arguments]

    def run(self, *arguments: str, timeout_s: float = 60) -> str:
        """Output of one command, which must succeed."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def has_image(self, name: str) -> bool:
        return name in self.run("images", "--format", "{{.Repository}}:{{.Tag}}").split()

    def build(self, dockerfile: str, tag: str) -> str:
        """An image of a Dockerfile in `deploy/`, with the host's way to package registries."""
        self.run(
            *("build", "--quiet", "--format", "docker", "--network", "host"),
            *("--isolation", "chroot", *pip_mounts()),
            *("--build-arg", f"BASE_IMAGE={BASE}"),
            *("--file", str(ROOT / "deploy" / dockerfile), "--tag", tag, str(ROOT)),
            timeout_s=600,
        )
        return tag

    def derive(self, image: str, tag: str, folder: Path) -> str:
        """Another image that differs only in its id."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(f"FROM {image}\nLABEL release={tag}\n")
        self.run("build", "--quiet", "--format", "docker", "--tag", tag, str(folder))
        return tag

    def containers(self, namespace: str, *, everything: bool = False) -> list[dict[str, Any]]:
        """The containers of one gateway: those that run, or all that exist."""
        label = f"label=hybrid-router.namespace={namespace}"
        shown = ("--all",) if everything else ()
        found: list[dict[str, Any]] = json.loads(
            self.run("ps", *shown, "--filter", label, "--format", "json") or "[]"
        )
        return found

    def ids(self, namespace: str) -> set[str]:
        return {found["Id"] for found in self.containers(namespace)}

    def remove_all(self, namespace: str) -> None:
        for found in self.containers(namespace, everything=True):
            self.run("rm", "--force", "--time", "0", found["Id"])


def prepared_podman() -> Podman:
    """Podman with the base image in its store."""
    podman = Podman(STORE)
    STORE.mkdir(parents=True, exist_ok=True)
    (STORE / "containers.conf").write_text(_CONFIG)
    if not podman.has_image(BASE):
        _make_base(podman)
    return podman


def _make_base(podman: Podman) -> None:
    tree = STORE / "debian"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tree)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:]
    archive = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        podman.command("import", "--quiet", "-", BASE),
        env=podman.environment,
        stdin=archive.stdout,
        timeout=300,
        check=True,
    )
    assert archive.stdout is not None
    archive.stdout.close()
    assert archive.wait() == 0
    subprocess.run(["rm", "-rf", str(tree)], check=True)


def pip_mounts() -> list[str]:
    """Mounts that let pip in a build reach what pip on this machine reaches."""
    paths = [Path("/etc/ssl/certs")]
    config = Path("/etc/pip.conf")
    if config.exists():
        paths.append(config)
        paths += [
            Path(found) for found in re.findall(r"file://(/[^/\s]+/[^/\s]+)", config.read_text())
        ]
    mounts = []
    for path in paths:
        if path.exists():
            mounts += ["--volume", f"{path}:{path}:ro"]
    return mounts


class EngineProcess:
    """Podman's Docker Engine API on a socket; it can go away and come back."""

    def __init__(self, podman: Podman, socket: Path) -> None:
        self._podman = podman
        self.socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._podman.command("system", "service", "--time", "0", self.url),
            env=self._podman.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + 20
        while not self.socket.exists():
            assert time.monotonic() < give_up_at, "podman's API did not come up"
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextmanager
def engine(podman: Podman, folder: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(podman, folder / "podman.sock")
    process.start()
    try:
        yield process
    finally:
        process.stop()
