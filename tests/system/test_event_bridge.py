"""A real sender: an emulator of EventBridge posts to the gateway through an API destination."""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from router.settings.keys import hash_key
from tests.fakes.upstreams import ok
from tests.integration.harness import Harness
from tests.system.tools import ministack

pytestmark = pytest.mark.system


@pytest.fixture
def event_bridge(tmp_path: Path) -> Iterator[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GATEWAY_PORT": str(port)}
    environment.pop("PYTHONPATH", None)
    with (tmp_path / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            ministack(), env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield botocore.session.get_session().create_client(
            "events", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="any", aws_secret_access_key="any",
            config=botocore.config.Config(retries={"total_max_attempts": 10, "mode": "standard"}),
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait(timeout=20)


def sends(client: Any, url: str) -> str:
    """Have events of a source sent to an URL, and put one; returns its id."""
    connection = client.create_connection(
        Name="router", AuthorizationType="API_KEY",
        AuthParameters={
            "ApiKeyAuthParameters": {"ApiKeyName": "X-Api-Key", "ApiKeyValue": "secret"}
        },
    )  # fmt: skip
    destination = client.create_api_destination(
        Name="router", ConnectionArn=connection["ConnectionArn"], InvocationEndpoint=url,
        HttpMethod="POST",
    )  # fmt: skip
    client.put_rule(Name="orders", EventPattern=json.dumps({"source": ["my.shop"]}))
    target = {
        "Id": "1",
        "Arn": destination["ApiDestinationArn"],
        "RoleArn": "arn:aws:iam::0:role/r",
    }
    client.put_targets(Rule="orders", Targets=[target])
    entry = {"Source": "my.shop", "DetailType": "Order Made", "Detail": json.dumps({"n": 7})}
    return str(client.put_events(Entries=[entry])["Entries"][0]["EventId"])


async def test_an_event_calls_the_model_of_its_trigger(tmp_path: Path, event_bridge: Any):
    keys = [{"name": "aws", "sha256": hash_key("secret"), "tenant": "aws"}]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    trigger = {"name": "orders", "source": "my.shop", "model": "m",
               "input": {"told": "{{ type }} {{ data.n }}", "id": "{{ id }}"}}  # fmt: skip
    settings = {
        "jobs": {"directory": "jobs"},
        "auth": {"api_keys_file": "keys.yaml"},
        "triggers": [trigger],
    }
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        sent = await asyncio.to_thread(sends, event_bridge, f"{gateway.url}/v1/events")
        await gateway.until(lambda: bool(gateway.warm[0].received))
        got = json.loads(gateway.warm[0].received[0].body)
        assert got == {"told": "Order Made 7", "id": sent}
