"""The platforms that every checkout can run: each starts one and gives the settings to call it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from botocore.credentials import Credentials

from tests.fakes.url_platform import (
    MetadataServer,
    UrlPlatform,
    environment,
    host_guard,
    key_guard,
    running,
    serving,
    signature_guard,
    token_guard,
)
from tests.integration.function_host.host_process import HostProcess

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "s3cret"}
"""For the environment of tests that sign."""

Start = Callable[[Path, Path], AbstractAsyncContextManager[dict[str, Any]]]
"""Given the models and a folder for files, gives `serverless` settings."""


@asynccontextmanager
async def function_host(models: Path, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The local function host: Lambda's Invoke API."""
    function = {
        "name": "echo",
        "handler": "workers.lambda_handler.handler",
        "environment": {"MODEL_REPOSITORY": str(models), "MODEL_NAME": "echo"},
    }
    (folder / "functions.json").write_text(json.dumps({"functions": [function]}))
    host = HostProcess(folder, "--config", str(folder / "functions.json"))
    try:
        yield aws(endpoint_url=host.url, auth="none")
    finally:
        host.stop()


def aws(**settings: Any) -> dict[str, Any]:
    """Settings of a Lambda function called `echo`."""
    return {"kind": "aws_lambda", "function": "echo", "region": "eu-central-1", **settings}


@asynccontextmanager
async def function_url(models: Path, _folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A Function URL with IAM auth."""
    key = KEYS["AWS_ACCESS_KEY_ID"]
    guard = signature_guard({key: Credentials(key, KEYS["AWS_SECRET_ACCESS_KEY"])})
    async with running(UrlPlatform(await environment(models, "echo"), guard=guard)) as platform:
        yield aws(function_url=platform.url)


@asynccontextmanager
async def cloud_run(models: Path, _folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Cloud Run with ID tokens from the metadata server."""
    issuer = MetadataServer()
    platform = UrlPlatform(await environment(models, "echo"), guard=token_guard(issuer))
    async with serving(issuer.handle) as metadata, running(platform):
        yield {"kind": "google_function", "url": platform.url, "metadata_url": metadata}


@asynccontextmanager
async def azure(models: Path, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Azure's front, with a function key and a route prefix."""
    (folder / "key").write_text("the-key\n")
    platform = UrlPlatform(
        await environment(models, "echo"), prefix="/api", guard=key_guard("the-key")
    )
    async with running(platform):
        yield {"kind": "azure_function", "url": platform.url, "key_file": "key"}


@asynccontextmanager
async def knative(models: Path, _folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Knative's ingress, which routes by Host."""
    host = "echo.models.example"
    platform = UrlPlatform(await environment(models, "echo"), guard=host_guard(host))
    async with running(platform):
        yield {"kind": "http_function", "url": platform.url, "host": host, "price": FREE}


@asynccontextmanager
async def openfaas(models: Path, _folder: Path) -> AsyncIterator[dict[str, Any]]:
    """OpenFaaS' gateway, which routes by path."""
    async with running(
        UrlPlatform(await environment(models, "echo"), prefix="/function/echo")
    ) as found:
        url = f"{found.url}/function/echo"
        yield {"kind": "http_function", "url": url, "price": FREE}


EVERYWHERE: dict[str, Start] = {
    "the local function host": function_host,
    "a Function URL": function_url,
    "Cloud Run": cloud_run,
    "Azure Functions": azure,
    "Knative": knative,
    "OpenFaaS": openfaas,
}
