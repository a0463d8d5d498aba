"""`hybrid-router jobs` and `hybrid-router batch`, as processes beside a gateway."""

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from router.jobs.records import State
from tests.fakes.upstreams import Answer, Gate, Received, hangs_up, ok
from tests.integration.harness import INFER, Harness

JOBS = {"jobs": {"directory": "jobs", "lease": "1s", "attempts": 1}}


async def echoes(received: Received) -> Answer:
    return Answer(body=received.body)


async def begun(gateway: Harness, *command: str) -> asyncio.subprocess.Process:
    words = [*command, "--url", gateway.url]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def told(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def ended_of(gateway: Harness) -> Counter[State]:
    jobs = gateway.gateway._jobs
    assert jobs is not None
    return jobs.runner.ended


def lines(count: int) -> bytes:
    asked = ({"custom_id": f"c{n}", "method": "POST", "url": INFER, "body": {"inputs": [n]}}
             for n in range(count))  # fmt: skip
    return b"".join(json.dumps(one).encode() + b"\n" for one in asked)


async def test_a_batch_goes_on_after_an_interruption_and_is_taken_up_again(tmp_path: Path):
    gate = Gate(echoes)
    (tmp_path / "in.jsonl").write_bytes(lines(5) + b"{bad\n")
    out, note = tmp_path / "out.jsonl", tmp_path / "out.jsonl.batch"
    command = ("batch", str(tmp_path / "in.jsonl"), "--model", "m", "--out", str(out))
    async with Harness(tmp_path, warm=[gate], config=JOBS) as gateway:
        first = await begun(gateway, *command)
        async with asyncio.timeout(60):  # a process has to start
            while gate.waiting < 4 or not note.exists():
                await asyncio.sleep(0.01)
        first.send_signal(signal.SIGINT)
        code, _, err = await told(first)
        assert code == 1
        assert "goes on" in err
        gate.opened.set()
        code, _, err = await told(await begun(gateway, *command))
        assert code == 1
        assert "1 lines failed" in err
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert [one["response"]["body"] for one in answers] == [{"inputs": [n]} for n in range(5)]
        (error,) = (tmp_path / "out.jsonl.errors").read_text().splitlines()
        assert json.loads(error)["error"]["line"] == 6
        assert len(gateway.warm[0].received) == 5


async def test_dead_letters_are_listed_and_tried_again(tmp_path: Path):
    async with Harness(tmp_path, warm=[hangs_up()], model={"attempts": 1}, config=JOBS) as gateway:
        taken = await gateway.request("POST", INFER, b"{}", {"prefer": "respond-async"})
        job_id = taken.json()["id"]
        ended = ended_of(gateway)
        await gateway.until(lambda: ended[State.DEAD] == 1)
        _, listed, _ = await told(await begun(gateway, "jobs", "list", "--status", "dead"))
        assert listed.startswith(f"{job_id}  dead ")
        gateway.warm[0].behave = ok()
        code, retried, _ = await told(await begun(gateway, "jobs", "retry", "--all"))
        assert (code, retried.split()[1]) == (0, "queued")
        await gateway.until(lambda: ended[State.DONE] == 1)
        code, _, err = await told(await begun(gateway, "jobs", "retry", job_id))
        assert (code, "only a dead job" in err) == (1, True)
