"""Entry of a sandbox process: ties its life to the host's, then becomes the Lambda runtime.

`python -m workers.function_host.bootstrap HOST_PID HANDLER`. Knows nothing about the function.
"""

import sys

from workers.lifetime import die_with_parent


def main(arguments: list[str]) -> None:
    """Run the handler until the host ends this process."""
    host_pid, handler = arguments
    die_with_parent(expected_parent=int(host_pid))
    # Imported late: a sandbox without a host should not spend time on it.
    from awslambdaric.__main__ import main as run_runtime  # noqa: PLC0415

    run_runtime(["awslambdaric", handler])


if __name__ == "__main__":
    main(sys.argv[1:])
