"""Our reader of AWS's event streams against botocore's, on frames of every kind, cut anywhere."""

from struct import pack
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from router.backends.serverless.event_stream import FrameReader
from router.domain.errors import UpstreamBrokenError
from tests.fakes.event_streams import chunk, frame, text

VALUES = st.one_of(
    st.sampled_from([b"\x00", b"\x01"]),
    st.binary(min_size=1, max_size=1).map(b"\x02".__add__),
    st.binary(min_size=2, max_size=2).map(b"\x03".__add__),
    st.binary(min_size=4, max_size=4).map(b"\x04".__add__),
    st.binary(min_size=8, max_size=8).map(b"\x05".__add__),
    st.binary(max_size=50).map(lambda value: b"\x06" + pack(">H", len(value)) + value),
    st.text("abcÄ☂-/", max_size=20).map(
        lambda value: b"\x07" + pack(">H", len(value.encode())) + value.encode()
    ),
    st.binary(min_size=8, max_size=8).map(b"\x08".__add__),
    st.binary(min_size=16, max_size=16).map(b"\x09".__add__),
)
NAMES = st.text("abc:-", min_size=1, max_size=20)
FRAMES = st.lists(
    st.builds(frame, st.binary(max_size=300), st.dictionaries(NAMES, VALUES, max_size=5)),
    max_size=5,
)


def theirs(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(found.headers, found.payload) for found in buffer]


@given(FRAMES, st.integers(1, 97))
def test_it_reads_what_botocore_reads(frames: list[bytes], step: int) -> None:
    data, reader = b"".join(frames), FrameReader()
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    ours = [found for part in parts for found in reader.feed(part)]
    wanted = theirs(data)
    assert [found.payload for found in ours] == [payload for _, payload in wanted]
    for found, (headers, _) in zip(ours, wanted, strict=True):
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        assert texts.items() <= found.headers.items()
        assert found.headers.keys() <= headers.keys()


@given(st.data())
def test_one_flipped_bit_is_noticed_as_botocore_does(data: st.DataObject) -> None:
    whole = bytearray(chunk(b"some payload"))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UpstreamBrokenError, match="damaged"):
        FrameReader().feed(bytes(whole))
    with pytest.raises(ParserError):
        theirs(bytes(whole))


@pytest.mark.parametrize(
    "headers",
    [{"a": b"\x07\xff\xff"}, {"a": b"\x0b\x00"}, {"a": b"\x04\x00"}, {"a": text("x")[:-1]}],
    ids=["a length beyond the end", "an unknown type cut short", "a number cut short", "text cut"],
)
def test_headers_that_do_not_add_up_are_refused(headers: dict[str, bytes]) -> None:
    with pytest.raises(UpstreamBrokenError, match="damaged"):
        FrameReader().feed(frame(b"", headers))
