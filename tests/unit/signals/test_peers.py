"""What is made of the answers about other gateways."""

import json

import pytest

from router.signals.own_record import OwnRecord
from router.signals.peers import MAX_CHANGES_BYTES, Peers
from router.signals.records import FIELDS, KEPT_CHANGES, Publication
from router.signals.snapshot import CanaryWord, FleetSnapshot, ModelTotals, SharedEndpoint


class Writer:
    """A gateway that writes, and what a reader is told about it."""

    def __init__(self, name: str = "peer") -> None:
        self.name = name
        self.record = OwnRecord(1)
        self.fields: dict[str, bytes] = {}

    def say(self, publication: Publication) -> None:
        told = self.record.take(publication)
        self.record.written()
        written = ["head", told.head, *told.fields]
        if told.after is None:
            self.fields = {}
        for name, value in zip(written[::2], written[1::2], strict=True):
            self.fields[str(name)] = value if isinstance(value, bytes) else str(value).encode()

    def answer(self, known: bytes) -> list[bytes | None]:
        """As the server's script answers."""
        head = int(self.fields["head"])
        if known and int(known) == head:
            return [b"same"]
        if known and head - KEPT_CHANGES <= int(known) < head:
            return [b"changes", b"%d" % head, *self._changes(int(known), head)]
        whole = [self.fields.get(name) for name in FIELDS]
        return [b"whole", b"%d" % head, *whole, *self._changes(int(self.fields["base"]), head)]

    def _changes(self, after: int, head: int) -> list[bytes]:
        return [self.fields[f"c{number}"] for number in range(after + 1, head + 1)]

    def heard_by(self, peers: Peers) -> FleetSnapshot:
        peers.hear(self.name, self.answer(peers.known(self.name)))
        return seen(peers)


def seen(peers: Peers) -> FleetSnapshot:
    return peers.snapshot(is_leader=False, taken_at=0.0)


def endpoint(name: str, owner: str = "peer") -> SharedEndpoint:
    return SharedEndpoint(name, f"http://{name}:80", 2, owner)


def everything(count: int, owner: str = "peer") -> Publication:
    return Publication(
        {"m": ModelTotals(count), "n": ModelTotals(1)},
        {"m": [endpoint(f"{owner}-1", owner)]},
        {"x": count},
        {"key": count},
        {"rule": CanaryWord("0123456789abcdef", count, is_out=False)},
    )


NOTHING = Publication({}, {}, {})


def test_changes_lead_to_what_the_whole_says() -> None:
    writer, follower = Writer(), Peers()
    followed = seen(follower)
    for publication in (
        everything(1),
        NOTHING,
        everything(2),
        Publication({"n": None}, {"m": None}, {"x": None}, {"key": None}, {"rule": None}),
        Publication({}, {"m": [endpoint("peer-2")]}, {"y": 3}),
    ):
        writer.say(publication)
        followed = writer.heard_by(follower)
        assert followed == writer.heard_by(Peers())

    assert followed.peers == {"peer": {"m": ModelTotals(2)}}
    assert followed.endpoints == {"m": (endpoint("peer-2"),)}
    assert followed.peer_in_flight == {"y": 3}
    assert (followed.taken, followed.canaries) == ({"peer": {}}, {})


def test_who_comes_late_gets_the_whole_and_the_changes_since() -> None:
    writer = Writer()
    for count in range(1, 100):
        writer.say(everything(count))

    assert writer.heard_by(Peers()).peers["peer"]["m"] == ModelTotals(99)


def test_who_missed_too_many_changes_gets_the_whole() -> None:
    writer, peers = Writer(), Peers()
    writer.say(everything(0))
    writer.heard_by(peers)
    for count in range(1, KEPT_CHANGES + 10):
        writer.say(everything(count))

    assert writer.answer(peers.known("peer"))[0] == b"whole"
    assert writer.heard_by(peers).peer_in_flight == {"x": KEPT_CHANGES + 9}


def test_what_gateways_say_is_merged_and_forgotten_with_them() -> None:
    first, second, peers = Writer("a"), Writer("b"), Peers()
    second.say(everything(2, "b"))
    second.heard_by(peers)
    first.say(everything(1, "a"))
    both = first.heard_by(peers)
    peers.retain(["b"])
    left = seen(peers)

    assert [found.id for found in both.endpoints["m"]] == ["a-1", "b-1"]
    assert both.peer_in_flight == {"x": 3}
    assert len(both.canaries["rule"]) == 2
    assert (list(left.peers), left.peer_in_flight) == (["b"], {"x": 2})
    assert [found.id for found in left.endpoints["m"]] == ["b-1"]
    assert both.peer_in_flight == {"x": 3}, "a snapshot never changes"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([None], id="missing"),
        pytest.param([b"{"], id="no JSON"),
        pytest.param([b'{"totals": {"m": [1]}}'], id="too short"),
        pytest.param([b'{"totals": {"m": [-1, 0, 0, 0, 0]}}'], id="a negative count"),
        pytest.param([b'{"endpoints": {"m": [{"id": "e", "url": "file:///", "concurrency": 1}]}}'],
                     id="an address that is none"),
        pytest.param([b'{"in_flight": {"x": 2}}', b"[]"], id="the second of two"),
    ],
)  # fmt: skip
def test_a_wrong_change_costs_its_owner_all_that_was_believed(changes: list[bytes | None]) -> None:
    writer, peers = Writer(), Peers()
    writer.say(everything(1))
    writer.heard_by(peers)
    peers.hear("peer", [b"changes", b"99999", *changes])

    assert (seen(peers).peers, seen(peers).peer_in_flight, peers.dropped) == ({}, {}, 1)
    assert peers.known("peer") == b"", "it is read whole the next time"
    assert writer.heard_by(peers).peer_in_flight == {"x": 1}


@pytest.mark.parametrize("answer", [[b"same"], [b"changes", b"7", b"{}"]])
def test_changes_to_what_is_not_known_are_not_believed(answer: list[bytes | None]) -> None:
    peers = Peers()
    peers.hear("peer", answer)

    assert (seen(peers).peers, peers.dropped) == ({}, 1)


def test_a_record_cannot_grow_without_bound_by_changes() -> None:
    writer, peers = Writer(), Peers()
    writer.say(everything(1))
    writer.heard_by(peers)
    head = int(peers.known("peer"))
    taken_up, change = 0, b""
    while peers.known("peer"):
        head += 1
        many = {f"{head}-{number}": 1 for number in range(1000)}
        change = json.dumps({"in_flight": many}).encode()
        peers.hear("peer", [b"changes", b"%d" % head, change])
        taken_up += len(change)

    assert taken_up < MAX_CHANGES_BYTES + len(change) + 1
    assert writer.heard_by(peers).peer_in_flight == {"x": 1}, "the whole, whose size is bounded"


def test_a_record_without_numbers_is_decoded_again_only_when_it_is_another() -> None:
    peers = Peers()

    def said(count: int) -> list[bytes | None]:
        return [b"whole", b"", b"{}", b"{}", b'{"x": %d}' % count, None, None]

    peers.hear("peer", said(1))
    first = seen(peers).peers["peer"]
    peers.hear("peer", said(1))
    assert seen(peers).peers["peer"] is first
    peers.hear("peer", said(2))
    assert seen(peers).peer_in_flight == {"x": 2}
