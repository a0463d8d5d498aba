"""Entry of a sandbox process: ties its life to the host's, then becomes the Lambda runtime.

`python -m workers.function_host.bootstrap HOST_PID HANDLER`. Knows nothing about the function.
"""

import os
import sys

from workers.lifetime import die_with_parent


def main(arguments: list[str]) -> None:
    """Run the handler until the host ends this process."""
    host_pid, handler = arguments
    die_with_parent(expected_parent=int(host_pid))
    # Imported late: a sandbox without a host should not spend time on it.
    from awslambdaric import bootstrap  # noqa: PLC0415
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient  # noqa: PLC0415

    address, _, secret = os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")

    class Client(LambdaRuntimeClient):  # type: ignore[misc]  # the package has no types
        """The runtime's client, whose part in Python takes no path in the address."""

        def call_rapid(
            self, http_method: str, endpoint: str, *rest: object, **more: object
        ) -> None:
            super().call_rapid(http_method, f"/{secret}{endpoint}", *rest, **more)

    bootstrap.run(handler, Client(address))


if __name__ == "__main__":
    main(sys.argv[1:])
