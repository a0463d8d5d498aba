"""The page that is shipped is the one that its sources give."""

import gzip
import hashlib
import re
from pathlib import Path

from router.domain.events import EventKind
from router.jobs.records import State

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "router" / "page" / "static"


def test_the_bundle_is_of_these_sources():
    lines = [line.split() for line in (STATIC / "sources.sha256").read_text().splitlines()]
    told = {name: digest for digest, name in lines}
    sources = [*(ROOT / "page" / "src").iterdir(), ROOT / "page" / "package.json"]
    found = {
        str(path.relative_to(ROOT / "page")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sources
    }
    assert told == found, "run `make page`"


def test_it_is_small_and_asks_nobody_else():
    files = [STATIC / name for name in ("index.html", "page.js", "page.css")]
    assert len(gzip.compress(b"".join(file.read_bytes() for file in files))) < 60_000
    assert b"http://" not in (STATIC / "index.html").read_bytes()
    assert b"https://" not in (STATIC / "index.html").read_bytes()


def test_it_offers_every_kind_of_event_and_every_state_of_jobs():
    source = "".join(path.read_text() for path in (ROOT / "page" / "src").glob("*.jsx"))
    for name, wanted in (("KINDS", EventKind), ("STATES", State)):
        listed = re.search(rf"const {name} = \[(.*?)\]", source)
        assert listed is not None
        assert re.findall(r'"(\w+)"', listed[1]) == [str(each) for each in wanted], name
