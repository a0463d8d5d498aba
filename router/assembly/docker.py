"""Settings of a Docker pool to its launcher. Imported only where such a pool is configured."""

from router.backends.pool.claims import Claims, claims_folder
from router.backends.pool.docker import ContainerLauncher, ContainerSpec, EngineParams
from router.backends.pool.supervisor import Launcher
from router.settings.pools import AtExit, DockerPool
from router.settings.schema import Settings


def container_launcher(
    owner: str, model: str, pool: DockerPool, settings: Settings
) -> ContainerLauncher:
    """The launcher of the containers of a model or a shared pool, which `model` is told to."""
    engine = _engine(pool, settings)
    return ContainerLauncher(owner, _spec(model, pool), engine, Claims(claims_folder()))


def reconfigure_containers(
    launcher: Launcher, model: str, pool: DockerPool, settings: Settings
) -> None:
    """Put new settings in force; containers that now differ are rolled."""
    assert isinstance(launcher, ContainerLauncher)  # noqa: S101
    launcher.configured = _spec(model, pool)
    launcher.engine = _engine(pool, settings)


def _spec(model: str, pool: DockerPool) -> ContainerSpec:
    return ContainerSpec(
        image=pool.image,
        model=model,
        command=pool.command,
        env=tuple(sorted(pool.env.items())),
        port=pool.port,
        memory_bytes=pool.memory_bytes,
        cpus=pool.cpus,
        network=pool.network,
        volumes=pool.volumes,
        gpus=pool.gpus,
        shm_bytes=pool.shm_bytes,
        restricted=pool.restricted,
    )


def _engine(pool: DockerPool, settings: Settings) -> EngineParams:
    return EngineParams(
        url=pool.engine,
        namespace=pool.namespace,
        models=frozenset(
            model.pool.group or model.name
            for model in settings.models
            if isinstance(model.pool, DockerPool)
            and (model.pool.engine, model.pool.namespace) == (pool.engine, pool.namespace)
        ),
        registry_file=pool.registry_file,
        outlives_gateway=pool.at_exit is AtExit.KEEP,
    )
