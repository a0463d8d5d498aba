"""A batch whose gateway and whose Redis are killed in the middle."""

from pathlib import Path

from tests.jobs_study.show import show


async def test_each_line_is_answered_once_whoever_is_killed(tmp_path: Path):
    shown = await show(tmp_path, lines=400, kills=1)
    assert shown.wrong == []
    assert shown.kills == {"gateway": 1, "redis": 1}
