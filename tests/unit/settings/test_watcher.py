import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.settings.sources import Sources, read_bounded, read_sources
from router.settings.watcher import ConfigWatcher


def write(path: Path, content: str) -> None:
    path.write_text(content)


def remove(path: Path) -> None:
    path.unlink()


class Reloads:
    """Counts reloads and answers each with the files as they are."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self) -> Sources:
        self.count += 1
        if self.error is not None:
            raise self.error
        return read_sources(self.files)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text("one")
    return path


def watcher_of(reloads: Reloads) -> ConfigWatcher:
    return ConfigWatcher(read_sources(reloads.files), 1.0, reloads)


async def poll(watcher: ConfigWatcher, times: int) -> None:
    for _ in range(times):
        await watcher.poll()


async def test_a_change_is_reported_once_after_two_looks(config: Path) -> None:
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    await poll(watcher, 3)
    assert reloads.count == 0
    write(config, "two")
    await poll(watcher, 1)
    assert reloads.count == 0
    await poll(watcher, 1)
    assert reloads.count == 1
    await poll(watcher, 3)
    assert reloads.count == 1


async def test_a_file_still_being_written_is_left_alone(config: Path) -> None:
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    for content in ("t", "tw", "two", "one"):
        write(config, content)
        await poll(watcher, 1)
    await poll(watcher, 2)
    assert reloads.count == 0


async def test_a_change_before_the_first_look_is_not_missed(config: Path) -> None:
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    write(config, "changed between load and watch")
    await poll(watcher, 2)
    assert reloads.count == 1


async def test_an_included_file_counts_too(config: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    reloads = Reloads(config, prices)
    watcher = watcher_of(reloads)
    write(prices, "appeared")
    await poll(watcher, 2)
    assert reloads.count == 1


async def test_files_named_by_the_new_configuration_are_watched(
    config: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    write(config, "prices: prices.yaml")
    reloads.files = (config, prices)
    await poll(watcher, 2)
    write(prices, "appeared later")
    await poll(watcher, 2)
    assert reloads.count == 2


async def test_the_symlink_swap_of_a_configmap_is_noticed(tmp_path: Path) -> None:
    for name, content in (("..v1", "one"), ("..v2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(content)
    (tmp_path / "..data").symlink_to("..v1")
    config = tmp_path / "router.yaml"
    config.symlink_to("..data/router.yaml")
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    (tmp_path / "..next").symlink_to("..v2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await poll(watcher, 2)
    assert reloads.count == 1


async def test_a_file_replaced_between_two_looks_is_one_change(config: Path) -> None:
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    remove(config)
    await poll(watcher, 1)
    write(config, "two")
    await poll(watcher, 2)
    assert reloads.count == 1


async def test_a_missing_file_is_reported_and_its_return_too(config: Path) -> None:
    reloads = Reloads(config)
    watcher = watcher_of(reloads)
    remove(config)
    await poll(watcher, 3)
    assert reloads.count == 1
    write(config, "one")
    await poll(watcher, 3)
    assert reloads.count == 2


async def test_a_failing_reload_is_logged_and_not_repeated_for_the_same_content(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloads = Reloads(config)
    reloads.error = RuntimeError("boom")
    watcher = watcher_of(reloads)
    write(config, "two")
    await poll(watcher, 4)
    assert reloads.count == 1
    assert "reloading the configuration failed" in caplog.text
    reloads.error = None
    write(config, "three")
    await poll(watcher, 2)
    assert reloads.count == 2


async def test_any_error_of_reading_is_logged_and_survived(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail = True

    def read_file(path: Path) -> bytes:
        if fail:
            raise RuntimeError("the disk is odd")
        return read_bounded(path)

    reloads = Reloads(config)
    watcher = ConfigWatcher(read_sources((config,)), 1.0, reloads, read_file=read_file)
    write(config, "two")
    with caplog.at_level(logging.ERROR):
        await poll(watcher, 2)
    assert "cannot look at the configuration files" in caplog.text
    fail = False
    await poll(watcher, 2)
    assert reloads.count == 1


async def test_the_loop_sleeps_between_looks_and_ends_when_cancelled(config: Path) -> None:
    slept: list[float] = []
    reloaded = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    async def reload() -> Sources:
        reloaded.set()
        return read_sources((config,))

    watched = read_sources((config,))
    write(config, "two")
    sleeper: Callable[[float], Awaitable[object]] = sleep
    task = asyncio.create_task(ConfigWatcher(watched, 0.5, reload, sleep=sleeper).run())
    await asyncio.wait_for(reloaded.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(slept) == {0.5}
    assert len(slept) >= 2
