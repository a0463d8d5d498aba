"""When certificates end, read from their bytes and compared with what another reader says."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from router.settings.certificate_dates import expires_at
from tests.fakes.certificates import make_certificate

LATE = int((datetime(2070, 1, 1, tzinfo=UTC) - datetime.now(UTC)).total_seconds() // 86_400)


@pytest.mark.parametrize("days", [1, 90, LATE], ids=["a day", "a season", "after 2049"])
def test_the_end_is_that_which_others_read(tmp_path: Path, days: int) -> None:
    pem = make_certificate(tmp_path, "one", days)[0].read_bytes()
    read = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    assert expires_at(pem) == read


def test_a_chain_ends_with_its_first(tmp_path: Path) -> None:
    long, short = (
        make_certificate(tmp_path, name, days)[0].read_bytes()
        for name, days in (("long", 90), ("short", 3))
    )
    assert expires_at(long + b"\n" + short) == expires_at(short)


def test_no_bytes_are_too_odd(tmp_path: Path) -> None:
    pem = bytearray(make_certificate(tmp_path, "one")[0].read_bytes())
    rng = random.Random(7)
    for _ in range(500):
        broken = bytearray(pem)
        for _ in range(rng.randint(1, 9)):
            broken[rng.randrange(30, len(broken) - 30)] = rng.choice(b"ABCxyz019+/=\n-")
        found = expires_at(bytes(broken))
        assert found is None or isinstance(found, float)
    assert expires_at(b"") is None
