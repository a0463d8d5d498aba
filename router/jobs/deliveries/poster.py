"""Sends one message to its receiver, and says what came back. Follows no redirect."""

from collections.abc import Sequence
from dataclasses import dataclass
from ssl import SSLContext

import aiohttp
from yarl import URL

from router.jobs.deliveries.addresses import Guard, NotAllowedError
from router.jobs.deliveries.records import Reply
from router.settings.deliveries import DeliveriesSettings

_AGENT = "hybrid-router"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: headers, with the body's media type among them, and body."""

    headers: Sequence[tuple[str, str]]
    body: bytes


class Poster:
    """The client of deliveries. It belongs to the event loop that first uses it.

    Not the gateway's own upstream client: that one trusts the addresses it is given. A connection
    is used once, so that each message goes to an address that was looked up for it.
    """

    def __init__(self, settings: DeliveriesSettings, tls: SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, message: Message) -> Reply:
        """Send it; whatever goes wrong is in the reply."""
        try:
            async with self._client().post(
                URL(url), data=message.body, headers=list(message.headers), allow_redirects=False
            ) as response:
                return Reply(response.status, _cause(response), _retry_after_s(response))
        except NotAllowedError as error:
            return Reply(cause=str(error))
        except TimeoutError:
            return Reply(cause=f"no answer within {self._settings.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(cause=_failure(error))

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    ssl=self._tls if self._tls is not None else True,
                    use_dns_cache=False,
                    force_close=True,
                    socket_factory=Guard(self._settings.private_networks),
                ),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"user-agent": _AGENT},
            )
        return self._session


def _cause(response: aiohttp.ClientResponse) -> str:
    if 300 <= response.status < 400:
        return f"its receiver answered {response.status}: redirects are not followed"
    return ""


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    told = response.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() and len(told) < 7 else 0.0


def _failure(error: Exception) -> str:
    """Why there was no answer, without addresses: what a name resolves to is not for clients."""
    chained: BaseException | None = error
    while chained is not None:
        if isinstance(chained, NotAllowedError):
            return str(chained)
        chained = chained.__cause__ or chained.__context__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name could not be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its certificate is not valid"
    return f"the connection failed ({type(error).__name__})"
