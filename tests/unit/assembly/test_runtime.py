"""What a runtime says of itself."""

import pytest

from tests.fakes.runtimes import BOTH, make_runtime


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("admin_listen: 127.0.0.1:9090", True),
        ("admin_listen: 0.0.0.0:9090", False),
        ("{admin_listen: 0.0.0.0:9090, admin_token_file: token}", True),
    ],
)
def test_addresses_are_shown_to_operators_only(server: str, shown: bool) -> None:
    text = f"server: {server}\n" if server.startswith("{") else f"server: {{{server}}}\n"
    assert make_runtime(text + BOTH, files={"token": "t" * 40}).shows_addresses is shown
