"""What names stand for, from a lookup that is told what to answer."""

import errno
import socket
from collections.abc import Sequence

import pytest

from router.backends.pool.names import Names, is_name, look_up
from router.upstream.address import parse_address


class Zone:
    """Answers lookups; an exception is raised."""

    def __init__(self, **answers) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host, port) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


def known(names) -> list[str]:
    return [address.host for address in names.known]


def make(zone, *urls) -> Names:
    return Names([parse_address(url) for url in urls], zone)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://10.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("unix:/run/replica.sock", False),
        ("http://replicas.internal:8000", True),
        ("http://localhost", True),
    ],
)
def test_only_names_stand_for_other_addresses(url, expected):
    assert is_name(parse_address(url)) is expected


async def test_every_address_of_a_name_is_a_replica_beside_those_without_a_name():
    zone = Zone(a=["10.0.0.1", "10.0.0.2"])
    names = make(zone, "http://10.1.1.1:8000", "http://a:8000")
    assert known(names) == ["10.1.1.1"]
    assert await names.refresh()
    assert known(names) == ["10.1.1.1", "10.0.0.1", "10.0.0.2"]
    assert zone.asked == ["a"]


async def test_a_replica_is_called_by_its_name():
    names = make(Zone(a=["10.0.0.1"]), "https://a")
    await names.refresh()
    (address,) = names.known
    assert (address.host, address.port, address.host_header) == ("10.0.0.1", 443, "a")
    assert address.server_name == "a"
    assert address != parse_address("https://a"), "connections are not shared"


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_AGAIN, "later"), TimeoutError()])
async def test_while_a_name_cannot_be_looked_up_its_addresses_stay(error):
    zone = Zone(a=["10.0.0.1"], b=["10.0.0.9"])
    names = make(zone, "http://a", "http://b")
    await names.refresh()
    zone.answers = {"a": error, "b": ["10.0.0.8"]}
    for _ in range(5):
        assert not await names.refresh()
    assert known(names) == ["10.0.0.1", "10.0.0.8"], "the other name is followed"


async def test_an_address_is_gone_when_three_answers_in_a_row_lack_it():
    zone = Zone(a=["10.0.0.1", "10.0.0.2"])
    names = make(zone, "http://a")
    seen = []
    for answer in (["1", "2"], ["1"], ["1"], ["1", "2"], ["1"], ["1"], ["1"], [], [], []):
        zone.answers["a"] = answer
        await names.refresh()
        seen.append("".join(sorted(known(names))))
    assert seen == ["12"] * 6 + ["1"] * 3 + [""]


class TestRealLookups:
    async def test_one_family_is_enough(self):
        assert await look_up("localhost", 80) == ["127.0.0.1"]

    async def test_no_such_name_is_an_answer(self, monkeypatch):
        await self.fails_with(monkeypatch, socket.gaierror(socket.EAI_NONAME, "unknown"))
        assert await look_up("nobody.invalid", 80) == ()

    @pytest.mark.parametrize(
        "error", [socket.gaierror(socket.EAI_AGAIN, "later"), OSError(errno.EMFILE, "no more")]
    )
    async def test_a_server_that_does_not_answer_is_none(self, monkeypatch, error):
        await self.fails_with(monkeypatch, error)
        with pytest.raises(OSError, match=r"later|no more"):
            await look_up("somebody.invalid", 80)

    async def fails_with(self, monkeypatch, error) -> None:
        def getaddrinfo(*_args, **_kwargs) -> None:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
