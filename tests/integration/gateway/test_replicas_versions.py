"""A pool whose replicas have different versions of the model, as while it is rolled."""

import json

import pytest

from tests.fakes.upstreams import Answer, Behaviour, Received
from tests.integration.harness import Harness


def has(*versions: str) -> Behaviour:
    """Names its versions; answers requests for others with 404, as real servers do."""

    async def behave(received: Received) -> Answer:
        if received.target == "/v2/models/m":
            return Answer(body=json.dumps({"name": "m", "versions": versions}).encode())
        asked = received.target.split("/")[5:6] if "/versions/" in received.target else []
        return Answer(200 if set(asked) <= set(versions) else 404)

    return behave


def known(gateway: Harness) -> bool:
    return all(endpoint.versions for endpoint in gateway.pool.endpoints.values())


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_version_is_asked_only_of_replicas_that_have_it(tmp_path, fast_path):
    server = {"fast_path": fast_path}
    async with Harness(tmp_path, warm=[has("1"), has("1", "2")], server=server) as gateway:
        await gateway.infer(path="/v2/models/m/versions/1/infer")
        await gateway.until(lambda: known(gateway))
        replies = [await gateway.infer(path="/v2/models/m/versions/2/infer") for _ in range(20)]
        nobody = await gateway.infer(path="/v2/models/m/versions/9/infer")
    assert {reply.status for reply in replies} == {200}
    assert len({reply.headers["x-router-endpoint"] for reply in replies}) == 1
    assert nobody.status == 404, "told by a replica, not held until one has it"


async def test_without_requests_for_versions_nobody_is_asked(tmp_path):
    async with Harness(tmp_path, warm=[has("1")]) as gateway:
        await gateway.infer()
        probes = gateway.pool.endpoints
        assert not gateway.pool.rotation.versions_matter
        assert all(endpoint.versions is None for endpoint in probes.values())
        assert [got.method for got in gateway.warm[0].received] == ["POST"]
