"""A short soak; `make soak` is the long one."""

import pytest

from tests.soak.run import soak


@pytest.mark.timeout(120)
async def test_random_faults_lose_nothing_and_leak_nothing(tmp_path):
    said: list[str] = []
    report = await soak(tmp_path, seconds=25.0, seed=1, say=said.append)
    assert not report.problems, str(report)
    assert report.tally.sent > 300
    assert len(report.stage.troubles) >= 3, "there was something to survive"
