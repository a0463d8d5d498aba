"""Objects where nothing can be written."""

from pathlib import Path

import pytest

from router.domain.errors import NotDurableError
from router.jobs.folder_objects import FolderObjects


async def test_why_nothing_can_be_written_is_in_the_log_and_not_in_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "jobs").write_text("a file where the folder should be")
    with pytest.raises(NotDurableError) as caught:
        await FolderObjects(tmp_path / "jobs").keep(b"payload")
    assert str(tmp_path) not in str(caught.value)
    (record,) = caplog.records
    assert "Not a directory" in record.getMessage()
    assert record.__dict__["by_strangers"], "whoever may send jobs must not fill the log"
