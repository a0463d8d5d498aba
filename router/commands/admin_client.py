"""The admin port of a running gateway, as the commands ask it: URL, token, documents."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click

from router.settings.sources import read_bounded

ADMIN_URL = "http://127.0.0.1:9090"
_DOCUMENTS = ("/v1/status", "/v1/events", "/v1/tenants")
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class AdminError(Exception):
    """The admin port did not answer, or not as one."""


def _token(_context: click.Context, parameter: click.Parameter, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return read_bounded(path).decode("ascii").strip()
    except OSError as error:
        told = f"{path} cannot be read: {error.strerror}"
        raise click.BadParameter(told, param=parameter) from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{path} holds no token", param=parameter) from error


token_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--token-file",
    "token",
    type=click.Path(path_type=Path),
    callback=_token,
    envvar="ROUTER_ADMIN_TOKEN_FILE",
    show_envvar=True,
    help="File of the admin port's token, where it asks for one.",
)

fleet_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--fleet", is_flag=True, help="Of all gateways with the same Redis, not of the one asked."
)


def path_of(path: str, *, fleet: bool) -> str:
    """Where a document is, of one gateway or of all."""
    return f"{path}?fleet=1" if fleet else path


@dataclass(frozen=True, slots=True)
class AdminPort:
    """Where a gateway can be asked, and as whom."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def base(self) -> str:
        """The URL as it is asked: a scheme, and a machine, may be left out."""
        url = self.url.strip().rstrip("/")
        if "://" in url:
            return url
        if url.isdigit():
            url = f":{url}"
        return f"http://127.0.0.1{url}" if url.startswith(":") else f"http://{url}"

    async def ask(self, path: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """A document; POSTs the question where there is one. Raises AdminError."""
        method = "GET" if question is None else "POST"
        headers = {"authorization": f"Bearer {self.token}"} if self.token is not None else {}
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session,
                session.request(method, self.base + path, json=question) as response,
            ):
                body, status, answered_by = await response.read(), response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AdminError(f"no gateway answers at {self.base}: {error}") from error
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if status == 404 and "x-request-id" in answered_by:
            raise AdminError(
                f"{self.base} is the data port of a gateway: give its admin port, which is"
                " server.admin_listen (9090 unless configured)"
            )
        if not isinstance(document, dict) or (status == 404 and path.startswith(_DOCUMENTS)):
            raise AdminError(f"{self.base} is not the admin port of a gateway")
        if status in {401, 403}:
            raise AdminError(f"{self.base}: {document.get('error')}")
        return document
