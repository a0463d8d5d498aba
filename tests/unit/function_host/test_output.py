import asyncio
import os

from hypothesis import given
from hypothesis import strategies as st

from workers.function_host.console import MAX_LINE_BYTES
from workers.function_host.invocation import LOG_TAIL_BYTES
from workers.function_host.output import LineSplitter, LogTail, SandboxOutput

CHUNKS = st.lists(
    st.binary(max_size=40) | st.just(b"\n") | st.integers(1, 5000).map(lambda n: b"x" * n),
    max_size=30,
)


@given(CHUNKS)
def test_the_tail_is_the_end_of_everything(chunks: list[bytes]) -> None:
    tail = LogTail()
    for chunk in chunks:
        tail.append(chunk)
    assert tail.value() == b"".join(chunks)[-LOG_TAIL_BYTES:]
    tail.clear()
    assert tail.value() == b""


@given(CHUNKS)
def test_lines_are_the_same_however_they_arrive(chunks: list[bytes]) -> None:
    lines: list[bytes] = []
    splitter = LineSplitter(lines.append)
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.finish()
    expected = [line[:MAX_LINE_BYTES] for line in b"".join(chunks).split(b"\n")]
    if not expected[-1]:
        expected.pop()
    assert lines == expected


async def test_reads_lines_while_the_sandbox_writes_and_the_rest_at_its_end() -> None:
    read_fd, write_fd = os.pipe()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    output = SandboxOutput(read_fd, lines.put_nowait)
    os.write(write_fd, b"one\ntwo")
    assert await asyncio.wait_for(lines.get(), 5) == b"one"
    os.close(write_fd)
    assert await asyncio.wait_for(lines.get(), 5) == b"two"
    assert output.tail.value() == b"one\ntwo"
    output.close()
    output.close()


async def test_drain_reads_what_was_written_before_it() -> None:
    read_fd, write_fd = os.pipe()
    output = SandboxOutput(read_fd, lambda _: None)
    os.write(write_fd, b"printed before the answer\n")
    output.drain()
    assert output.tail.value() == b"printed before the answer\n"
    output.close()
    os.close(write_fd)


async def test_close_does_not_wait_for_a_grandchild_that_holds_the_pipe() -> None:
    read_fd, write_fd = os.pipe()
    lines: list[bytes] = []
    output = SandboxOutput(read_fd, lines.append)
    os.write(write_fd, b"last words")
    output.close()
    assert lines == [b"last words"]
    os.close(write_fd)
