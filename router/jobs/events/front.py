"""`/v1/events`: takes events, has them call models, and answers as their senders can read it."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import msgspec
from aiohttp.http_parser import RawRequestMessage

from router.domain.clock import Clock
from router.domain.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    RouterError,
    UnauthorizedError,
    UnfitEventError,
    UnsupportedMediaError,
)
from router.domain.ports import BackendResponse
from router.gateway.access import admit, identify
from router.gateway.body import Body
from router.gateway.exchange import Exchange
from router.gateway.head import Head, read_head
from router.gateway.protocols.base import require
from router.gateway.protocols.openai import OPENAI
from router.gateway.protocols.request_line import origin_form
from router.jobs.asking import JSON, answer_of
from router.jobs.calls import wants_later
from router.jobs.events.answers import batch_of, response_of
from router.jobs.events.event import Event
from router.jobs.events.google import GoogleTokens, looks_like_token
from router.jobs.events.platforms import Arrived, arrived
from router.jobs.events.triggers import job_of, trigger_for
from router.jobs.front import CheckWindow, document_of
from router.jobs.keeping import kept
from router.jobs.place import Place
from router.jobs.records import OPEN, Job
from router.jobs.runner import Runner
from router.runtime import Runtime
from router.settings.keys import ApiKey
from router.settings.triggers import Unmatched

PATH = "/v1/events"
_ORIGIN = "webhook-request-origin"
_HOST = re.compile(r"[A-Za-z0-9.:/_-]{1,255}")
_MOST_WAITING = 1000
"""Senders that wait for answers at a time."""
_LOOK_EVERY_S = 1.0
_BEYOND_S = 0.5
"""A job that just makes its window is still answered."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends events, and the configuration that was in force then."""

    headers: Mapping[str, str]
    caller: ApiKey | None
    runtime: Runtime
    received_at: float


class Events:
    """The path of events. `results` counts them: accepted, duplicate, dropped, refused."""

    def __init__(
        self, place: Place, runner: Runner, check_window: CheckWindow, clock: Clock
    ) -> None:
        self._place = place
        self._runner = runner
        self._check_window = check_window
        self._google = GoogleTokens(clock)
        self._waiting: dict[asyncio.Event, str] = {}
        self.results: Counter[str] = Counter()
        runner.endings.listeners.append(self._ended)

    def takes(self, message: RawRequestMessage, path: str) -> bool:
        """Whether a request is the business of `answer`; a browser's question is not."""
        return path == PATH and (message.method != "OPTIONS" or _ORIGIN in message.headers)

    async def answer(
        self, message: RawRequestMessage, body: Body, exchange: Exchange, runtime: Runtime
    ) -> BackendResponse:
        """The answer to a request. Raises RouterError."""
        exchange.protocol = OPENAI
        if not runtime.settings.triggers:
            raise NotFoundError("no triggers are configured: this gateway takes no events")
        headers = {name.lower(): value for name, value in message.headers.items()}
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        head = read_head(
            message.headers, keys_are_ours=not runtime.keys.is_open, media=frozenset({media})
        )
        caller = await self._caller(message, head, headers, runtime)
        exchange.request_id = head.request_id or exchange.request_id
        exchange.key = caller.name if caller is not None else ""
        exchange.record.tenant = (caller.tenant if caller is not None else "") or ""
        if message.method == "OPTIONS":
            return _allowed(headers[_ORIGIN])
        require(message.method, "POST")
        if headers.get("content-encoding", "identity") != "identity":
            raise UnsupportedMediaError("events are sent without a content-encoding")
        settings = runtime.settings
        content = await body.read(settings.events.max_body, settings.server.body_timeout_s)
        exchange.payload_bytes = len(content)
        sender = Sender(headers, caller, runtime, exchange.received_at)
        return await self._answered(sender, content, exchange)

    async def _caller(
        self, message: RawRequestMessage, head: Head, headers: Mapping[str, str], runtime: Runtime
    ) -> ApiKey | None:
        """Who sends: by the key in a header or in the query, or by Google's token."""
        settings = runtime.settings.events
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if settings.google_audience and scheme.lower() == "bearer" and looks_like_token(token):
            email = await self._google.email_of(token, settings.google_audience)
            return _account(email, runtime)
        key = head.key
        if key is None and settings.key_parameter and not runtime.keys.is_open:
            query = origin_form(message.path).partition("?")[2]
            try:
                found = parse_qs(query, max_num_fields=20).get(settings.key_parameter)
            except ValueError:
                raise InvalidRequestError("the query has too many fields") from None
            key = found[0] if found else None
        return identify(runtime, key)

    async def _answered(
        self, sender: Sender, content: bytes, exchange: Exchange
    ) -> BackendResponse:
        settings = sender.runtime.settings.events
        try:
            found = arrived(sender.headers, content, settings.max_events)
            if found.validation:
                return answer_of({"validationResponse": found.validation})
            calls = await self._calls(sender, found.events)
        except RouterError:
            self.results["refused"] += 1
            raise
        if calls:
            exchange.model = calls[0][0].model
        jobs = await self._all_kept(calls)
        self._runner.nudge()
        waits = found.reads_answers and not wants_later(sender.headers)
        open_ended = [job for job in jobs if not job.spec.callback] if waits else []
        if not open_ended:
            return _accepted(jobs, found)
        ended = await self._all_ended(open_ended)
        if found.is_batch:
            return await batch_of(ended, self._place)
        return await response_of(ended[0], self._place)

    async def _calls(self, sender: Sender, events: list[Event]) -> list[tuple[Job, bytes]]:
        """The calls of all events, before any is kept: a request is taken whole, or not at all."""
        runtime, now = sender.runtime, self._place.wall_clock()
        calls = []
        for event in events:
            trigger = trigger_for(runtime.settings.triggers, event)
            if trigger is not None:
                job, body = await job_of(event, trigger, runtime, sender.caller, now)
                self._check_window(job.model, job.due_at, 1, now)
                calls.append((job, body))
            elif runtime.settings.events.unmatched is Unmatched.REFUSE:
                kind = event.attributes["type"][:100]
                raise UnfitEventError(f"no trigger is for events of type {kind!r} from this source")
            else:
                self.results["dropped"] += 1
        for _ in calls:
            admit(runtime, sender.caller, sender.received_at)
        return calls

    async def _all_kept(self, calls: list[tuple[Job, bytes]]) -> list[Job]:
        """The jobs of calls, written down together. Raises what the first that failed raises."""
        found = await asyncio.gather(
            *(self._kept(job, body) for job, body in calls), return_exceptions=True
        )
        jobs = list[Job]()
        for one in found:
            if isinstance(one, BaseException):
                raise one
            jobs.append(one)
        return jobs

    async def _kept(self, job: Job, body: bytes) -> Job:
        found = await kept(self._place, job, body)
        is_new = found.created_at == job.created_at
        self.results["accepted" if is_new else "duplicate"] += 1
        return found

    # -- senders that wait -----------------------------------------------------------------------

    def _ended(self, job_id: str) -> None:
        for waiting, awaited in self._waiting.items():
            if awaited == job_id:
                waiting.set()

    async def _all_ended(self, jobs: list[Job]) -> list[Job]:
        if len(self._waiting) >= _MOST_WAITING:
            raise QueueFullError("as many senders wait for answers as may; send the event again", 5)
        return [await self._when_ended(job) for job in jobs]

    async def _when_ended(self, job: Job) -> Job:
        """The job once it has ended. Raises DeadlineExceededError."""
        place, told = self._place, asyncio.Event()
        self._waiting[told] = job.id
        try:
            while True:
                found = await place.store.get(job.id)
                if found is None:
                    raise NotFoundError("the job of the event has been forgotten")
                if found.state not in OPEN:
                    return found
                left_s = job.due_at + _BEYOND_S - place.wall_clock()
                if left_s <= 0:
                    raise DeadlineExceededError(
                        "there is no answer yet: send the event again to get it"
                    )
                try:
                    async with asyncio.timeout(min(left_s, _LOOK_EVERY_S)):
                        await told.wait()
                    told.clear()
                except TimeoutError:
                    continue
        finally:
            del self._waiting[told]


def _account(email: str, runtime: Runtime) -> ApiKey | None:
    name = runtime.settings.events.google_accounts.get(email)
    if name is None:
        raise ForbiddenError("the service account of the OIDC token is not one that may send")
    caller = runtime.keys.named(name)
    if caller is None and not runtime.keys.is_open:
        raise UnauthorizedError("the API key of the service account is not known any more")
    return caller


def _allowed(origin: str) -> BackendResponse:
    """The handshake of webhooks (CloudEvents HTTP 1.1 Web Hooks, 4.2): this sender may send."""
    if not _HOST.fullmatch(origin):
        raise InvalidRequestError("webhook-request-origin must be a host name")
    headers = [("webhook-allowed-origin", origin), ("webhook-allowed-rate", "*"),
               ("allow", "POST, OPTIONS")]  # fmt: skip
    return BackendResponse(200, headers, b"")


def _accepted(jobs: list[Job], found: Arrived) -> BackendResponse:
    documents = [
        {**document_of(job), "event": {"id": job.spec.event["id"],
                                       "source": job.spec.event["source"]}}
        for job in jobs
    ]  # fmt: skip
    if found.is_batch or not jobs:
        return answer_of({"object": "list", "data": documents}, 202)
    headers = [JSON, ("location", f"/v1/jobs/{jobs[0].id}")]
    return BackendResponse(202, headers, msgspec.json.encode(documents[0]))
