"""Ties the life of this process to the life of its parent.

Decides only how a child notices that its parent is gone, so that nothing survives a `kill -9` of
the process that started it. It never cleans up: the child dies at once, as if killed itself.
"""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_POLL_S = 0.5


def die_with_parent(expected_parent: int | None = None) -> None:
    """Make the kernel (or, outside Linux, a watching thread) kill this process with its parent.

    Call it from the main thread, early: a parent that died before the call is noticed only if
    `expected_parent`, its pid as told by itself, is given. On Linux the signal follows the
    *thread* that started this process, so parents must start children from a thread that lives as
    long as they. Raises OSError where the kernel refuses.
    """
    parent = os.getppid() if expected_parent is None else expected_parent
    if sys.platform == "linux":
        _ask_kernel_for_death_signal()
        if os.getppid() != parent:  # it died before the request: the signal will never come
            _die()
    else:
        threading.Thread(target=_watch, args=(parent,), name="die-with-parent", daemon=True).start()


def _ask_kernel_for_death_signal() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
