"""Public traces: what is made of what is downloaded, and what is refused."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.results.cases import LAMBDA, SERVEGEN, WORLDCUP
from tests.results.fetch import SOURCES, FetchError, Source, fetch

RUN = (
    ",is_cold,inst_id,start_time,aws_duration,client_start_time,client_elapsed_time\n"
    "0,True,sandbox-1,1587650005549,1848.19,1587650005.4912045,1.9431374073\n"
)
STREAM = "0,1.3316666,8.598383725,Weibull,0.37534861401,0.39676778\n600,0,0,,0,0\n"
MADE_RUN = b"""\
run,is_cold,inst_id,client_start_time,client_elapsed_s,aws_duration_ms
res-01-2020-04-24_17-53-33,1,sandbox-1,1587650005.4912045,1.943137,1848.19
"""
MADE_STREAM = b"""\
client,window_start_s,rate_rps,cv,arrival_dist,param1,param2
0,0,1.33167,8.5983837,Weibull,0.37534861,0.39676778
0,600,0,0,,0,0
"""
MADE = {
    WORLDCUP: ("period,count\nfirst,2\n", b"period,count\nfirst,2\n"),
    LAMBDA: (RUN, MADE_RUN),
    SERVEGEN: (STREAM, MADE_STREAM),
}


def placed(tmp_path: Path, source: Source, content: str) -> str:
    """The source's parts in a folder, which stands for where it comes from."""
    for part in source.parts:
        path = tmp_path / source.folder / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path.as_uri()


@pytest.mark.parametrize("file", MADE)
def test_what_is_downloaded_is_brought_into_shape(tmp_path: Path, file: str) -> None:
    content, begin = MADE[file]
    source = next(source for source in SOURCES if source.file == file)
    origin = placed(tmp_path, source, content)
    made = source.make([content.encode()] * len(source.parts))
    assert made.startswith(begin)
    fetch(replace(source, digest=hashlib.sha256(made).hexdigest()), tmp_path, origin)
    assert gzip.decompress((tmp_path / file).read_bytes()) == made


def test_only_the_first_sixty_days_are_kept() -> None:
    source = next(source for source in SOURCES if source.file == WORLDCUP)
    lines = b"period,count\n" + b"minute,1\n" * 90_000
    assert source.make([lines]).count(b"\n") == 1 + 60 * 24 * 60


def test_other_content_than_the_known_is_refused(tmp_path: Path) -> None:
    origin = placed(tmp_path, SOURCES[0], "something else")
    with pytest.raises(FetchError, match="is not the expected"):
        fetch(SOURCES[0], tmp_path, origin)
    assert not (tmp_path / SOURCES[0].file).exists()


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=SOURCES[0].parts[0]):
        fetch(SOURCES[0], tmp_path, tmp_path.as_uri())
