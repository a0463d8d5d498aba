"""The same suite against the platforms' own runtimes, with what `deploy/serverless` makes for them.

Each is installed by pip into an environment of its own, once.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.session import Session
from yarl import URL

from router.backends.child_process import free_port
from router.backends.serverless.function import Function
from router.domain.errors import (
    CallRefusedError,
    PlatformRefusedError,
    TimeLimitError,
    UpstreamRejectedError,
)
from tests.contract.serverless.cases import JSON_BODY
from tests.contract.serverless.platforms import FREE, KEYS, aws
from tests.contract.serverless.running import call, function_of
from tests.contract.serverless.test_every_platform import check_all_cases, check_cold_start
from tests.fakes.models import write_identity
from tests.fakes.platform_tools import (
    FUNCTION_REQUIREMENTS,
    ROOT,
    TOOLS,
    bundle,
    process,
    tool_environment,
)
from tests.fakes.url_platform import MetadataServer, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PACKAGES = ("-r", str(FUNCTION_REQUIREMENTS))
MODEL = {"MODEL_REPOSITORY": "models", "MODEL_NAME": "echo"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    write_identity(repository, "echo")
    return repository


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


# -- Google: the real Functions Framework ----------------------------------------------------------


@pytest.fixture
def cloud_function(models: Path, tmp_path: Path) -> Iterator[str]:
    found = tool_environment("google", *PACKAGES, "functions-framework==3.10.2")
    folder = bundle("google", models, "echo", tmp_path / "app")
    port = free_port()
    command: list[str | Path] = [
        found / "functions-framework",
        "--source",
        "main.py",
        "--target",
        "infer",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process(command, f"{url}/robots.txt", folder, MODEL):
        yield url


async def test_functions_framework(cloud_function: str, tmp_path: Path) -> None:
    issuer = MetadataServer()
    async with serving(issuer.handle) as metadata:
        settings = {"kind": "google_function", "url": cloud_function, "metadata_url": metadata}
        async with function_of(settings, tmp_path) as function:
            await check_cold_start(function)
            await check_all_cases(function)
    assert set(issuer.audiences) == {cloud_function}


# -- Azure: the real programming model behind a front that checks keys -----------------------------


@pytest.fixture
def function_app(models: Path, tmp_path: Path) -> Iterator[str]:
    found = tool_environment("azure", *PACKAGES, "azure-functions==1.26.0")
    folder = bundle("azure", models, "echo", tmp_path / "app")
    port = free_port()
    host = ROOT / "tests" / "data" / "azure_host.py"
    url = f"http://127.0.0.1:{port}"
    with process([found / "python", host, str(port), "right"], url, folder, MODEL):
        yield url


async def test_azure_functions(function_app: str, tmp_path: Path) -> None:
    for key in ("right", "wrong"):
        await asyncio.to_thread((tmp_path / key).write_text, key)
    settings = {"kind": "azure_function", "url": function_app, "key_file": "right"}
    async with function_of(settings, tmp_path) as function:
        await check_cold_start(function)
        await check_all_cases(function)
    async with function_of({**settings, "key_file": "wrong"}, tmp_path) as function:
        with pytest.raises(PlatformRefusedError, match="status 401"):
            await call(function, JSON_BODY)


# -- Knative: the real Python runtime of `func`, started by the first request ----------------------


class Activator:
    """Routes by Host, and holds the first request until an instance that it starts is ready."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.host = "echo.models.example"
        self._command: list[str | Path] = [
            python,
            "-c",
            "from func_python.http import serve; import func; serve(func.new)",
        ]
        self._folder = folder
        self._stack = ExitStack()
        self._port = free_port()
        self._starting = asyncio.Lock()
        self.starts = 0

    async def handle(self, request: web.Request) -> web.Response:
        if request.headers["host"] != self.host:
            return web.Response(status=404)
        async with self._starting:
            if not self.starts:
                await asyncio.to_thread(self._start)
        url = f"http://127.0.0.1:{self._port}{request.raw_path}"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                _as_is(url),
                data=io.BytesIO(await request.read()),
                headers=request.headers,
                skip_auto_headers=["accept-encoding", "content-type"],
            ) as answer,
        ):
            headers = answer.headers.copy()
            headers.popall("transfer-encoding", None)
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    def _start(self) -> None:
        self.starts += 1
        address = f"127.0.0.1:{self._port}"
        environment = {**MODEL, "LISTEN_ADDRESS": address, "PYTHONPATH": str(self._folder)}
        ready = f"http://{address}/health/readiness"
        self._stack.enter_context(process(self._command, ready, self._folder, environment))

    def close(self) -> None:
        self._stack.close()


def _as_is(url: str) -> URL:
    return URL(url, encoded=True)


async def test_knative_func(models: Path, tmp_path: Path) -> None:
    found = await asyncio.to_thread(tool_environment, "knative", *PACKAGES, "func-python==0.8.1")
    folder = await asyncio.to_thread(bundle, "knative/func", models, "echo", tmp_path / "app")
    activator = Activator(folder, found / "python")
    try:
        async with serving(activator.handle) as url:
            settings = {"kind": "http_function", "url": url, "host": activator.host, "price": FREE}
            async with function_of(settings, tmp_path) as function:
                await check_cold_start(function)
                await check_all_cases(function)
            async with function_of({**settings, "host": "other.example"}, tmp_path) as function:
                with pytest.raises(PlatformRefusedError, match="does not know the function"):
                    await call(function, JSON_BODY)
    finally:
        await asyncio.to_thread(activator.close)
    assert activator.starts == 1


# -- AWS: the runtime interface emulator, and an emulator of the API -------------------------------


@pytest.fixture
def emulated_runtime(models: Path, tmp_path: Path) -> Iterator[str]:
    """AWS's own emulator, which comes with the SAM command line, running our handler."""
    emulator = _runtime_emulator()
    ports = [free_port(), free_port()]
    command: list[str | Path] = [
        *(emulator, "--runtime-interface-emulator-address", f"127.0.0.1:{ports[0]}"),
        *("--runtime-api-address", f"127.0.0.1:{ports[1]}"),
        *(sys.executable, "-m", "awslambdaric", "workers.lambda_handler.handler"),
    ]
    environment = {**MODEL, "MODEL_REPOSITORY": str(models), "PYTHONPATH": str(ROOT)}
    url = f"http://127.0.0.1:{ports[0]}"
    with process(command, url, tmp_path, environment):
        yield url


def _runtime_emulator() -> Path:
    path = TOOLS / "aws-lambda-rie"
    if not path.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            TOOLS,
        ]
        subprocess.run([*pip, "aws-sam-cli==1.170.0"], check=True, timeout=300)
        (wheel,) = TOOLS.glob("aws_sam_cli-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            machine = {"x86_64": "x86_64", "aarch64": "arm64"}[os.uname().machine]
            path.write_bytes(archive.read(f"samcli/local/rapid/aws-lambda-rie-{machine}"))
        path.chmod(0o755)
        wheel.unlink()
    return path


async def test_runtime_interface_emulator(emulated_runtime: str, tmp_path: Path) -> None:
    settings = aws(function="function", endpoint_url=emulated_runtime)
    async with function_of(settings, tmp_path) as function:
        await check_all_cases(function)


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    found = tool_environment("ministack", "ministack==1.5.33", *PACKAGES)
    port = free_port()
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "PATH": f"{found}:/usr/bin:/bin",
    }
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("ministack")
    with process([found / "ministack"], f"{url}/_ministack/health", folder, environment):
        yield url


class Account:
    """What a user does with AWS's own tools, on the emulator."""

    def __init__(self, url: str) -> None:
        self._url = url
        session = Session()
        session.set_credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
        self._client = session.create_client(
            "lambda",
            region_name="eu-central-1",
            endpoint_url=url,
            config=Config(retries={"max_attempts": 0}, read_timeout=120),
        )

    def create(self, name: str, handler: str, code: bytes, timeout_s: int = 30) -> None:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._client.create_function(
            FunctionName=name,
            Runtime=version,
            Handler=handler,
            Role="arn:aws:iam::000000000000:role/f",
            Code={"ZipFile": code},
            Timeout=timeout_s,
            MemorySize=1769,
            Environment={"Variables": MODEL},
        )

    def create_streaming(self, name: str) -> None:
        """A function with a runtime of its own that streams through the Runtime API."""
        self._client.create_function(
            FunctionName=name,
            Runtime="provided.al2023",
            Handler="bootstrap",
            Role="arn:aws:iam::000000000000:role/f",
            Code={"ZipFile": _zip("bootstrap", STREAMING)},
        )

    def reserve(self, name: str, concurrency: int) -> None:
        self._client.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=concurrency
        )

    def publish(self, name: str, alias: str) -> None:
        version = self._client.publish_version(FunctionName=name)["Version"]
        self._client.create_alias(FunctionName=name, Name=alias, FunctionVersion=version)

    def url(self, name: str, invoke_mode: str) -> str:
        """The function's URL, by path: names below localhost do not resolve everywhere."""
        made = self._client.create_function_url_config(
            FunctionName=name, AuthType="AWS_IAM", InvokeMode=invoke_mode
        )
        url_id = str(URL(made["FunctionUrl"]).host).partition(".")[0]
        return f"{self._url}/_aws/lambda-url/{url_id}"


@pytest.fixture(scope="module")
def account(ministack: str, tmp_path_factory: pytest.TempPathFactory, models: Path) -> Account:
    """The emulator with our zip deployed as `echo`, and functions that fail."""
    folder = tmp_path_factory.mktemp("zip")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    path = bundle("lambda", models, "echo", folder / "echo.zip", "--python", version)
    account = Account(ministack)
    account.create("echo", "workers.lambda_handler.handler", path.read_bytes())
    for name, body in FAILING.items():
        source = f"import time\ndef handler(event, context):\n    {body}\n"
        account.create(name, "main.handler", _zip("main.py", source), timeout_s=2)
    return account


Check = Callable[[Function], Awaitable[None]]
Invoke = Callable[..., Awaitable[None]]

STREAMING = """#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
head = json.dumps({"statusCode": 201, "headers": {"content-type": "text/event-stream"}}).encode()
headers = {
    "lambda-runtime-function-response-mode": "streaming",
    "content-type": "application/vnd.awslambda.http-integration-response",
    "transfer-encoding": "chunked",
}
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    event = api.getresponse()
    event.read()
    parts = [head, bytes(8), b"data: 1\\n\\n", b"data: [DONE]\\n\\n"]
    path = f"/2018-06-01/runtime/invocation/{event.headers['lambda-runtime-aws-request-id']}"
    api.request("POST", f"{path}/response", iter(parts), headers, encode_chunked=True)
    api.getresponse().read()
"""
FAILING = {
    "raises": "raise ValueError('no')",
    "hangs": "time.sleep(30)",
    "busy": "time.sleep(1.5); return {'statusCode': 200, 'body': '{}'}",
}


def _zip(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, text)
    return buffer.getvalue()


@pytest.fixture
def invoke(ministack: str, account: Account, tmp_path: Path) -> Invoke:
    """Runs a check against one of the account's functions."""

    async def run(name: str, check: Check, **settings: Any) -> None:
        serverless = aws(function=name, endpoint_url=ministack, **settings)
        async with function_of(serverless, tmp_path) as function:
            await check(function)

    return run


async def test_our_zip_on_ministack(invoke: Invoke) -> None:
    await invoke("echo", check_all_cases)


async def test_our_zip_invoked_for_a_stream_on_ministack(invoke: Invoke) -> None:
    await invoke("echo", check_all_cases, invoke_mode="response_stream")


async def test_our_zip_by_its_url_on_ministack(account: Account, tmp_path: Path) -> None:
    url = await asyncio.to_thread(account.url, "echo", "BUFFERED")
    async with function_of(aws(function_url=url), tmp_path) as function:
        await check_all_cases(function)


async def test_a_stream_by_its_url_on_ministack(account: Account, tmp_path: Path) -> None:
    """The emulator passes what a runtime streams whole, and only by URL."""
    await asyncio.to_thread(account.create_streaming, "streams")
    url = await asyncio.to_thread(account.url, "streams", "RESPONSE_STREAM")
    settings = aws(function_url=url, invoke_mode="response_stream")
    async with function_of(settings, tmp_path) as function:
        response = await call(function, JSON_BODY)
    assert (response.status, response.body) == (201, b"data: 1\n\ndata: [DONE]\n\n")
    headers = {name.lower(): value for name, value in response.headers}
    assert headers["content-type"] == "text/event-stream"


async def test_failures_of_streams_on_ministack(invoke: Invoke) -> None:
    async def unknown(function: Function) -> None:
        with pytest.raises(PlatformRefusedError):
            await call(function, JSON_BODY)

    await invoke("raises", _raised, invoke_mode="response_stream")
    await invoke("nobody", unknown, invoke_mode="response_stream")


async def _raised(function: Function) -> None:
    """More often than a circuit bears: it is the model's answer, and counts against nobody.

    AWS says the exception's name, the emulator one of its own.
    """
    for _ in range(6):
        response = await call(function, JSON_BODY)
        assert response.status == 500
        assert json.loads(response.body) == {"error": "the function failed (Runtime.HandlerError)"}
    assert function.circuit.is_closed


async def test_a_handler_that_raises_on_ministack(invoke: Invoke) -> None:
    await invoke("raises", _raised)


async def test_an_alias_on_ministack(invoke: Invoke, account: Account) -> None:
    await asyncio.to_thread(account.publish, "echo", "live")
    await invoke("echo", check_all_cases, qualifier="live")


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("hangs", TimeLimitError, "time limit"),
        ("nobody", CallRefusedError, "ResourceNotFoundException"),
    ],
)
async def test_failures_on_ministack(
    invoke: Invoke, name: str, error: type[Exception], told: str
) -> None:
    async def check(function: Function) -> None:
        with pytest.raises(error, match=told):
            await call(function, JSON_BODY)

    await invoke(name, check)


async def test_throttling_on_ministack(invoke: Invoke, account: Account) -> None:
    await asyncio.to_thread(account.reserve, "busy", 1)

    async def check(function: Function) -> None:
        results = await asyncio.gather(
            *(call(function, JSON_BODY) for _ in range(3)), return_exceptions=True
        )
        refusals = [result for result in results if isinstance(result, UpstreamRejectedError)]
        assert len(refusals) == 2
        assert "ReservedFunctionConcurrentInvocationLimitExceeded" in str(refusals[0])
        assert refusals[0].retry_after_s is not None
        assert function.limit.current < function.limit.maximum

    await invoke("busy", check)
