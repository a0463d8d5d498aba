"""How many clients a limit on open files allows."""

import pytest

from router.gateway.http.client_limits import connections_of


@pytest.mark.parametrize(
    ("descriptors", "possible"),
    [(256, 160), (1, 1), (2, 1), (64, 32), (1024, 768), (1 << 20, 786_432)],
)
def test_what_is_kept_for_the_gateway_itself(descriptors, possible):
    assert connections_of(descriptors) == possible
