"""Settings of a Kubernetes pool to its driver. Imported only where such a pool is configured."""

from router.backends.pool.endpoints import Pool
from router.backends.pool.kube_api import KubeApi
from router.backends.pool.kubernetes import KubernetesDriver, KubernetesParams, KubernetesSource
from router.domain.clock import Clock
from router.domain.ports import PoolDriver
from router.settings.pools import KubernetesPool, SizedBy
from router.settings.schema import Settings
from router.upstream.client import UpstreamClient


def kubernetes_driver(
    pool: Pool, of: KubernetesPool, settings: Settings, upstream: UpstreamClient, clock: Clock
) -> KubernetesDriver:
    """The driver of a pool of pods."""
    deployment = of.deployment if of.size is SizedBy.MANAGED else None
    source = KubernetesSource(of.service, of.port, deployment)
    api = KubeApi(of.namespace, of.kubeconfig)
    return KubernetesDriver(pool, upstream, api, source, _params(of, settings), clock)


def reconfigure_kubernetes(driver: PoolDriver, of: KubernetesPool, settings: Settings) -> None:
    """Put new settings in force."""
    assert isinstance(driver, KubernetesDriver)  # noqa: S101
    driver.reconfigure(_params(of, settings))


def _params(of: KubernetesPool, settings: Settings) -> KubernetesParams:
    return KubernetesParams(of.concurrency, settings.server.drain_timeout_s, of.zone)
