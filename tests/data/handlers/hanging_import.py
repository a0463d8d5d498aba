"""A module whose import never ends: a handler that is stuck in init and ignores SIGTERM."""

import os
import signal
import time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
time.sleep(60)


def handler(event: object, context: object) -> None:
    """Never reached."""
