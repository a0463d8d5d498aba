"""What the operator sees of all tenants' jobs on the admin port."""

import hashlib
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import Gate, hangs_up, ok
from tests.integration.harness import INFER, Harness
from tests.integration.jobs.test_later import ended

ON = {"jobs": {"directory": "jobs", "lease": "1s", "attempts": 1}}


async def shown(gateway: Harness, query: str = "") -> Any:
    reply = await gateway.ask("GET", f"/v1/jobs{query}")
    assert reply.status == 200, reply.body
    return reply.json()


async def test_jobs_of_all_tenants_are_shown_and_dead_letters_tried_again(tmp_path):
    keys = [
        {"name": name, "tenant": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name in ("a", "b")
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = {**ON, "auth": {"api_keys_file": "keys.yaml"}}
    async with Harness(tmp_path, warm=[hangs_up()], config=config) as gateway:
        for key in ("a", "b"):
            headers = {"prefer": "respond-async", "authorization": f"Bearer {key}"}
            taken = await gateway.request("POST", INFER, b"{}", headers)
            key_of = {"authorization": f"Bearer {key}"}
            assert (await ended(gateway, taken.headers["location"], **key_of))["status"] == "dead"
        found = await shown(gateway, "?status=dead&limit=1")
        assert (found["states"]["dead"], found["has_more"]) == (2, True)
        (job,) = found["jobs"]
        assert (job["tenant"], job["status"], job["model"]) == ("a", "dead", "m")
        assert job["error"]["message"]
        (other,) = (await shown(gateway, f"?status=dead&after={job['id']}"))["jobs"]
        assert other["tenant"] == "b"

        gateway.warm[0].behave = ok()
        retry = {"id": job["id"], "action": "retry"}
        assert (await gateway.ask("POST", "/v1/jobs", retry)).json()["status"] == "queued"
        own = {"authorization": "Bearer a"}
        assert (await ended(gateway, f"/v1/jobs/{job['id']}", **own))["status"] == "done"
        again = await gateway.ask("POST", "/v1/jobs", retry)
        assert (again.status, "only a dead job" in again.body.decode()) == (409, True)


async def test_what_waits_is_shown_with_when_it_is_due(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=ON) as gateway:
        for _ in range(30):
            assert (await gateway.infer(prefer="respond-async")).status == 202
        await gateway.until(lambda: gate.waiting > 0)
        found = await shown(gateway)
        states = found["states"]
        assert states["queued"] + states["running"] == 30
        assert len(found["jobs"]) == 30
        assert all(0 < lane["due_in_s"] <= 3600 for lane in found["lanes"])
        assert found["overdue_s"] == 0
        gate.opened.set()


@pytest.mark.parametrize(
    ("method", "query", "question", "status"),
    [
        ("GET", "?status=lost", None, 400),
        ("GET", "?limit=0", None, 400),
        ("GET", "?tenant=a", None, 400),
        ("POST", "", {"id": "job_0", "action": "retry"}, 404),
        ("POST", "", {"id": "job_0", "action": "delete"}, 400),
        ("POST", "", {"id": 7}, 400),
    ],
)
async def test_wrong_questions(tmp_path, method, query, question, status):
    async with Harness(tmp_path, warm=[ok()], config=ON) as gateway:
        assert (await gateway.ask(method, f"/v1/jobs{query}", question)).status == status


async def test_without_jobs_there_are_none(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        found = await shown(gateway)
        assert (found["on"], found["jobs"], found["states"]) == (False, [], {})
        retry = {"id": "job_0", "action": "retry"}
        assert (await gateway.ask("POST", "/v1/jobs", retry)).status == 404
