"""Ties the life of a process to its parent's, so that nothing survives a `kill -9` of the parent.

`python -m router.processes.lifetime PARENT COMMAND...` becomes COMMAND, tied in the same way: for
programs that cannot do it themselves. Never cleans up: the child dies as if killed itself.
"""

import ctypes
import os
import signal
import sys
import threading
from time import sleep

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_POLL_S = 0.5


def die_with_parent(parent: int) -> None:
    """Have the kernel (or, outside Linux, a thread) kill this process when `parent` ends.

    Call it from the main thread. Raises OSError where the kernel refuses.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
        if os.getppid() != parent:  # it ended before the request: the signal will never come
            _die()
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def tied(command: list[str], parent: int) -> list[str]:
    """The command that runs `command` so that it ends with the process `parent`."""
    return [sys.executable, "-m", "router.processes.lifetime", str(parent), *command]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        sleep(_POLL_S)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the point of it; the kernel's tie is kept
