"""The paths of the admin port: the same, whether one process answers or the parent of several.

Knows no answers: a path that only one of the two had would not be the same port.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from router.gateway.admin.events import EVENTS_PATH
from router.gateway.admin.jobs import JOBS_PATH
from router.page.feed import Feed
from router.page.handlers import add_page

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Handlers(NamedTuple):
    """Who answers each path."""

    health: Handler
    ready: Handler
    metrics: Handler
    status: Handler
    events: Handler
    config: Handler
    explain: Handler
    reload: Handler
    drain: Handler
    canary: Handler
    quality: Handler
    quality_action: Handler
    jobs: Handler
    jobs_action: Handler


def add_routes(app: web.Application, feed: Feed, handlers: Handlers) -> None:
    """Add all paths: the page with its feed, and those of the handlers."""
    add_page(app, feed)
    app.router.add_get("/healthz", handlers.health)
    app.router.add_get("/readyz", handlers.ready)
    app.router.add_get("/metrics", handlers.metrics)
    app.router.add_get("/v1/status", handlers.status)
    app.router.add_get(EVENTS_PATH, handlers.events)
    app.router.add_get("/v1/config", handlers.config)
    app.router.add_post("/v1/explain", handlers.explain)
    app.router.add_post("/v1/reload", handlers.reload)
    app.router.add_post("/v1/drain", handlers.drain)
    app.router.add_post("/v1/canary", handlers.canary)
    app.router.add_get("/v1/quality", handlers.quality)
    app.router.add_post("/v1/quality", handlers.quality_action)
    app.router.add_get(JOBS_PATH, handlers.jobs)
    app.router.add_post(JOBS_PATH, handlers.jobs_action)
