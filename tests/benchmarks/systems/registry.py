"""Every system under test, in the order in which they are run."""

from tests.benchmarks.systems.envoy import Envoy
from tests.benchmarks.systems.gateway import VARIANTS
from tests.benchmarks.systems.haproxy import Haproxy
from tests.benchmarks.systems.nginx import Nginx
from tests.benchmarks.systems.plain_aiohttp import PlainAiohttp
from tests.benchmarks.systems.system import System
from tests.benchmarks.systems.vllm_router import VllmRouter

REFERENCE = "nginx"
"""The system that every ratio is to."""

SYSTEMS: tuple[System, ...] = (
    Nginx(), Haproxy(), Envoy(), *VARIANTS, PlainAiohttp(), VllmRouter(),
)  # fmt: skip
