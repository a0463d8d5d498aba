"""Cores are shared out evenly; logs stay short."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.pool.confinement import (
    Cores,
    available_cores,
    pin,
    resident_bytes,
    rotate,
)


def test_cores_that_fewest_workers_have_are_taken_first():
    cores = Cores({3, 1, 2})
    first, second = cores.take(2), cores.take(1)
    assert (set(first), set(second)) == ({1, 2}, {3})
    assert cores.take(1) == {1}
    cores.give_back(first)
    assert cores.take(1) == {2}


@pytest.mark.parametrize(("count", "taken"), [(0, set()), (9, {0, 1})], ids=["none", "too many"])
def test_what_cannot_be_had(count, taken):
    assert Cores({0, 1}).take(count) == taken


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=60))
def test_no_core_has_two_workers_more_than_another_while_all_take_one(steps):
    cores, held = Cores(range(4)), []
    for takes, pick in steps:
        if takes:
            held.append(cores.take(1))
        elif held:
            cores.give_back(held.pop(pick % len(held)))
    for taken in held:
        cores.give_back(taken)
    assert {frozenset.union(*(cores.take(1) for _ in range(4)))} == {frozenset(range(4))}


def test_this_process_is_somewhere_and_has_memory():
    assert available_cores()
    assert resident_bytes(os.getpid()) > 1 << 20
    assert resident_bytes(2**22 + 1) == 0, "there is no such process"
    with pytest.raises(ProcessLookupError):
        pin(2**22 + 1, available_cores())


class TestRotate:
    def test_a_short_file_is_left_alone(self, tmp_path):
        log = tmp_path / "m-1.log"
        rotate(log, 10)
        log.write_bytes(b"0123456789")
        rotate(log, 10)
        assert log.read_bytes() == b"0123456789"
        assert list(tmp_path.iterdir()) == [log]

    def test_of_a_long_one_the_end_is_kept_beside_it(self, tmp_path):
        log, kept = tmp_path / "m-1.log", tmp_path / "m-1.log.1"
        with log.open("ab") as writer:
            for text in (b"first", b"second, and long"):
                writer.write(text)
                writer.flush()
                rotate(log, 4)
                assert log.read_bytes() == b""
            writer.write(b"new")
        assert kept.read_bytes() == b"long"
        assert log.read_bytes() == b"new", "the writer goes on at the beginning"
