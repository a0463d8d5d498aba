"""Who looks after a container: one process of this machine at a time.

A claim is a lock on a file, so it ends with its process however that ends. Decides nothing about
containers; calls block for the time of a file operation, so use a thread.
"""

import fcntl
import os
import tempfile
from pathlib import Path


def claims_folder() -> Path:
    """The folder of this user's claims, as all of their gateways on this machine find it."""
    return Path(tempfile.gettempdir()) / f"hybrid-router-claims-{os.getuid()}"


class Claims:
    """The claims of this process. Names are those of containers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def claim(self, name: str) -> bool:
        """Whether it is ours now. False while another process, or another pool of ours, has it."""
        if name in self._held:
            return False
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{name}.lock"
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            if _is_at(file, path):
                self._held[name] = file
                return True
            os.close(file)  # its last holder has just removed it

    def release(self, name: str) -> None:
        """The container is gone. Does nothing if it was not ours."""
        file = self._held.pop(name, None)
        if file is not None:
            # Removed while still locked: whoever waits for it finds that out.
            (self._folder / f"{name}.lock").unlink(missing_ok=True)
            os.close(file)

    def release_all(self) -> None:
        """Leave all containers to whoever comes next."""
        for name in list(self._held):
            self.release(name)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
