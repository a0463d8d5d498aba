"""Claims: one holder at a time, and none that outlives its process."""

import subprocess
import sys
from pathlib import Path

from router.backends.pool.claims import Claims

_HOLD = """
import sys
from pathlib import Path
from router.backends.pool.claims import Claims
print(Claims(Path(sys.argv[1])).claim("c"), flush=True)
sys.stdin.read()
"""


def test_one_holds_a_claim_until_it_lets_go(tmp_path: Path):
    first, second = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert first.claim("a")
    assert not first.claim("a")
    assert not second.claim("a")
    assert second.claim("b")
    first.release("a")
    assert second.claim("a")


def test_nothing_is_left_of_claims_that_were_let_go(tmp_path: Path):
    claims = Claims(tmp_path / "claims")
    assert claims.claim("a")
    assert claims.claim("b")
    claims.release("never held")
    claims.release_all()
    assert list((tmp_path / "claims").iterdir()) == []
    assert claims.claim("a")
    claims.release_all()


def test_a_claim_ends_with_its_process(tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "claims")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        claims = Claims(tmp_path / "claims")
        assert not claims.claim("c")
    finally:
        holder.kill()
        holder.communicate()
    assert claims.claim("c")
    claims.release_all()


def test_others_cannot_look_into_the_folder(tmp_path: Path):
    claims = Claims(tmp_path / "claims")
    claims.claim("a")
    assert (tmp_path / "claims").stat().st_mode & 0o777 == 0o700
    claims.release_all()
