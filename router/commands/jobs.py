"""Jobs and batches of a running gateway, from the command line: `jobs` and `batch`.

Both speak to the data port, as any client does, and see what the caller's key may see.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from router.commands.exits import fail
from router.settings.sources import read_bounded

DATA_URL = "http://127.0.0.1:8080"
_POLL_S = 0.5
_PATIENCE = 240
"""Polls without an answer, two minutes of them, before a gateway counts as gone."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_STATES = ("queued", "running", "done", "dead", "cancelled", "expired")
_PAGE = 100
_CHUNK_BYTES = 256 * 1024


class DataPortError(Exception):
    """The data port did not do what it was asked, and says why."""


class NoAnswerError(DataPortError):
    """Nobody answers there now."""


class DataPort:
    """The data port of a gateway, as one caller."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    @asynccontextmanager
    async def asking(
        self,
        method: str,
        path: str,
        **more: Any,  # noqa: ANN401  aiohttp's
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 400. Raises DataPortError, and NoAnswerError where it may come yet."""
        try:
            async with self._session.request(
                method, self._url + path, allow_redirects=False, **more
            ) as response:
                if response.status >= 500:
                    raise NoAnswerError(f"{self._url}: {_message(await response.text())}")
                if response.status >= 400:
                    raise DataPortError(f"{self._url}: {_message(await response.text())}")
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswerError(f"no gateway answers at {self._url}: {error}") from error

    async def document(
        self,
        method: str,
        path: str,
        **more: Any,  # noqa: ANN401  aiohttp's
    ) -> dict[str, Any]:
        """A document. Raises as `asking`."""
        async with self.asking(method, path, **more) as response:
            found = json.loads(await response.read())
        if not isinstance(found, dict):
            raise DataPortError(f"{self._url} is not the data port of a gateway with jobs")
        return found

    async def download(self, file_id: str, to: Path) -> None:
        """A file, put in its place once it is whole. Raises as `asking`."""
        part = to.with_name(f"{to.name}.part")
        with await asyncio.to_thread(part.open, "wb") as target:
            async with self.asking("GET", f"/v1/files/{file_id}/content") as response:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    await asyncio.to_thread(target.write, chunk)
        await asyncio.to_thread(part.replace, to)


def _message(text: str) -> str:
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text[:200]
    return str(error["message"] if isinstance(error, dict) else error)


def _key(_context: click.Context, parameter: click.Parameter, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return read_bounded(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} holds no key", param=parameter) from error


def _caller(command: Callable[..., Any]) -> Callable[..., Any]:
    url = click.option(
        "--url", default=DATA_URL, show_default=True, metavar="URL", help="Data port."
    )
    key = click.option(
        "--key-file", "key", type=click.Path(path_type=Path), callback=_key,
        envvar="ROUTER_API_KEY_FILE", show_envvar=True, help="File of the caller's API key.",
    )  # fmt: skip
    return url(key(command))


def _run(url: str, key: str | None, work: Callable[[DataPort], Any]) -> None:
    async def run() -> None:
        headers = {"x-api-key": key} if key is not None else {}
        async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session:
            await work(DataPort(url, session))

    try:
        asyncio.run(run())
    except DataPortError as error:
        fail(str(error))


@click.group()
def jobs() -> None:
    """Calls that are answered later: list them, cancel them, try dead ones again."""


@jobs.command("list")
@_caller
@click.option("--status", type=click.Choice(_STATES), multiple=True, help="Repeatable.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--json", "as_json", is_flag=True, help="One document a line.")
def list_(url: str, key: str | None, status: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show jobs in the order of their coming."""

    async def work(port: DataPort) -> None:
        async for job in _listed(port, status, limit):
            click.echo(json.dumps(job) if as_json else _line(job))

    _run(url, key, work)


@jobs.command()
@_caller
@click.argument("job_ids", nargs=-1, required=True)
def cancel(url: str, key: str | None, job_ids: tuple[str, ...]) -> None:
    """Cancel jobs that have not ended."""

    async def work(port: DataPort) -> None:
        for job_id in job_ids:
            click.echo(_line(await port.document("DELETE", f"/v1/jobs/{job_id}")))

    _run(url, key, work)


@jobs.command()
@_caller
@click.option("--all", "is_all", is_flag=True, help="All dead letters.")
@click.argument("job_ids", nargs=-1)
def retry(url: str, key: str | None, is_all: bool, job_ids: tuple[str, ...]) -> None:
    """Let dead letters wait again, with all their attempts."""
    if is_all == bool(job_ids):
        raise click.UsageError("give either --all or JOB_IDS")

    async def work(port: DataPort) -> None:
        # All are known before the first one moves: a page begins where the one before ended.
        dead = [job["id"] async for job in _listed(port, ("dead",), 10**9)] if is_all else job_ids
        for job_id in dead:
            click.echo(_line(await port.document("POST", f"/v1/jobs/{job_id}/retry")))

    _run(url, key, work)


async def _listed(
    port: DataPort, states: tuple[str, ...], limit: int
) -> AsyncIterator[dict[str, Any]]:
    after, left = "", limit
    while left > 0:
        query = {"status": ",".join(states), "after": after, "limit": str(min(left, _PAGE))}
        page = await port.document("GET", "/v1/jobs", params=query)
        for job in page["data"]:
            yield job
        left -= len(page["data"])
        after = page["last_id"]
        if not page["has_more"]:
            return


def _line(job: dict[str, Any]) -> str:
    cause = job.get("error", {}).get("message", "")
    tries = f"{job['attempts']} tries"
    return f"{job['id']}  {job['status']:<9}  {job['model']}  {tries}  {cause}".rstrip()


@click.command()
@_caller
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", help="Model of OIP requests; else see --endpoint.")
@click.option("--endpoint", help="Path of all requests, such as /v1/chat/completions.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of the answers.")
@click.option("--window", default="24h", show_default=True, help="Time in which it is done.")
def batch(  # noqa: PLR0913, PLR0917  one for each option
    url: str, key: str | None, file: Path, model: str | None, endpoint: str | None, out: Path,
    window: str,
) -> None:  # fmt: skip
    """Answer all requests of FILE (JSONL), and wait for it.

    After Ctrl-C the batch goes on; the same command takes it up again. Lines that failed are in
    OUT.errors. Exits with 1 if there are any.
    """
    if (model is None) == (endpoint is None):
        raise click.UsageError("give either --model or --endpoint")
    asked = {
        "endpoint": endpoint or f"/v2/models/{model}/infer", "completion_window": window
    }  # fmt: skip

    async def work(port: DataPort) -> None:
        note = out.with_name(f"{out.name}.batch")
        batch_id = await _begun(port, file, asked, note)
        try:
            ended = await _watched(port, batch_id)
        except asyncio.CancelledError:
            click.echo(f"\nbatch {batch_id} goes on; the same command takes it up again", err=True)
            raise
        await _fetched(port, ended, out)
        await asyncio.to_thread(note.unlink)
        if ended["status"] != "completed" or ended["request_counts"]["failed"]:
            told = (ended.get("errors") or {}).get("data") or [{}]
            why = told[0].get("message", f"see {out}.errors")
            raise DataPortError(
                f"batch {ended['status']}, {ended['request_counts']['failed']} lines failed: {why}"
            )

    _run(url, key, work)


async def _begun(port: DataPort, file: Path, asked: dict[str, str], note: Path) -> str:
    """The batch that was begun before, or a new one; its id is noted beside the output."""
    if await asyncio.to_thread(note.exists):
        return (await asyncio.to_thread(note.read_text)).strip()
    with await asyncio.to_thread(file.open, "rb") as content:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename=file.name)
        uploaded = await port.document("POST", "/v1/files", data=form)
    made = await port.document(
        "POST", "/v1/batches", json={"input_file_id": uploaded["id"], **asked}
    )
    await asyncio.to_thread(note.write_text, made["id"])
    return str(made["id"])


async def _watched(port: DataPort, batch_id: str) -> dict[str, Any]:
    """The batch once it has ended; a gateway that restarts meanwhile is waited for."""
    failures = 0
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("validating", total=None)
        while True:
            try:
                found = await port.document("GET", f"/v1/batches/{batch_id}")
            except NoAnswerError:
                failures += 1
                if failures > _PATIENCE:
                    raise
            else:
                failures, counts = 0, found["request_counts"]
                done = counts["completed"] + counts["failed"]
                total = counts["total"] or None
                progress.update(task, description=found["status"], total=total, completed=done)
                if found["status"] in _ENDED:
                    return found
            await asyncio.sleep(_POLL_S)


async def _fetched(port: DataPort, batch: dict[str, Any], out: Path) -> None:
    for name, to in (
        ("output_file_id", out), ("error_file_id", out.with_name(f"{out.name}.errors"))
    ):  # fmt: skip
        if batch[name] is not None:
            await port.download(batch[name], to)
