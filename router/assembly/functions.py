"""A model's function from its settings: bounds and prices, target, credentials. Starts nothing.

Credentials that are the same after a reload are carried over, so that no request misses them.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, assert_never
from urllib.parse import urlsplit

from router.backends.serverless.access import (
    Access,
    AllOf,
    FixedHeaders,
    SecretHeader,
    Signature,
)
from router.backends.serverless.aws_credentials import AwsChain
from router.backends.serverless.aws_lambda import LambdaCaller, LambdaTarget
from router.backends.serverless.azure_federation import Workload, WorkloadTokens
from router.backends.serverless.azure_identity import (
    METADATA_URL,
    IdentitySource,
    IdentityTokens,
)
from router.backends.serverless.bodies import Endpoint
from router.backends.serverless.function import (
    Function,
    FunctionCaller,
    FunctionParams,
    KeptWarm,
)
from router.backends.serverless.google_files import FileTokens
from router.backends.serverless.google_tokens import MetadataTokens
from router.backends.serverless.http_function import HttpFunctionCaller, HttpTarget
from router.backends.serverless.refresher import Fetch, Refresher
from router.backends.serverless.secret_files import SecretFile, TlsFiles, TlsPaths
from router.backends.serverless.sigv4 import Scope
from router.domain.clock import Clock
from router.domain.snapshot import ServerlessLimits
from router.settings.functions import (
    AwsLambda,
    AzureFunction,
    GoogleFunction,
    HttpFunction,
    LocalFunction,
    ManagedIdentity,
    ServerlessSettings,
    billed_vcpus,
)
from router.settings.quantities import HOUR_S
from router.settings.schema import ModelSettings
from router.upstream.address import Address, parse_address
from router.upstream.client import UpstreamClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FunctionParts:
    """What all functions of one gateway process share."""

    upstream: UpstreamClient
    local_host: Address
    clock: Clock
    wall_clock: Clock


@dataclass(frozen=True, slots=True)
class CredentialBook:
    """The credentials of a configuration, each once however many functions use it.

    `kept` are those of the configuration before, `used` those that this one needs.
    """

    kept: Mapping[Hashable, Refresher[Any]]
    used: dict[Hashable, Refresher[Any]] = field(default_factory=dict)

    def get(self, key: tuple[Hashable, ...], make: Callable[[], Refresher[T]]) -> Refresher[T]:
        """The one credential with that key; the key says all that `make` depends on."""
        found: Refresher[T] = self.used.get(key) or self.kept.get(key) or make()
        self.used[key] = found
        return found


def assemble_function(
    model: ModelSettings, parts: FunctionParts, credentials: CredentialBook, old: Function | None
) -> Function | None:
    """The model's function, None without one; the one in force is given its new settings."""
    settings = model.serverless
    if settings is None:
        return None
    params = _params(model.name, settings)
    caller = _Callers(parts, credentials).caller(settings, model.name)
    if old is not None:
        old.reconfigure(params, caller)
        return old
    return Function(params, caller, parts.clock)


def _params(model: str, settings: ServerlessSettings) -> FunctionParams:
    price = settings.price
    takes_events = isinstance(settings, LocalFunction | AwsLambda)
    return FunctionParams(
        endpoint_id=f"{model}-fn",
        model=model,
        memory_gb=settings.memory_mb / 1024,
        enabled=settings.enabled,
        limits=ServerlessLimits(
            settings.limits.max_payload_bytes,
            settings.timeout_s,
            can_stream=isinstance(settings, HttpFunction | GoogleFunction)
            or _is_streamed(settings),
            takes_events=takes_events,
        ),
        max_concurrency=settings.max_concurrency,
        max_queued=settings.queue.max_requests,
        max_queued_bytes=settings.queue.max_bytes,
        max_wait_s=settings.queue.max_wait_s,
        reclaim_s=settings.idle_s,
        usd_per_request=price.usd_per_request,
        usd_per_billed_s=price.usd_per_gb_s * settings.memory_mb / 1024
        + price.usd_per_vcpu_s * billed_vcpus(settings),
        service_time_s=settings.service_time_s,
        cold_start_s=settings.cold_start_s,
        min_billed_s=price.min_billed_s,
        billing_step_s=price.billing_step_s,
        kept_warm=_kept_warm(settings),
    )


def _kept_warm(settings: ServerlessSettings) -> KeptWarm:
    if not isinstance(settings, AwsLambda):
        return KeptWarm()
    price, memory_gb = settings.price, settings.memory_mb / 1024
    if (count := settings.managed_instances.count) > 0:
        usd_per_hour = settings.managed_instances.price_per_instance_hour
        fee = 1.0 + price.managed_fee_ratio
        # Of a call only its request is billed.
        return KeptWarm(settings.max_concurrency, 0.0, count * usd_per_hour * fee / HOUR_S)
    environments = settings.provisioned_concurrency
    return KeptWarm(
        environments,
        price.provisioned_call_usd_per_gb_s * memory_gb,
        environments * price.provisioned_usd_per_gb_s * memory_gb,
    )


def _is_streamed(settings: ServerlessSettings) -> bool:
    return isinstance(settings, AwsLambda) and settings.invoke_mode == "response_stream"


@dataclass(frozen=True, slots=True)
class _Callers:
    """Builds the callers of one configuration."""

    parts: FunctionParts
    credentials: CredentialBook

    def caller(self, settings: ServerlessSettings, model: str) -> FunctionCaller:
        """The caller for a function of any kind."""
        match settings:
            case LocalFunction():
                return self._lambda(settings, Endpoint(self.parts.local_host), FixedHeaders())
            case AwsLambda():
                access = self._signature(settings) if settings.auth == "iam" else FixedHeaders()
                if settings.function_url:
                    return self._http(settings, model, settings.function_url, access)
                url = settings.endpoint_url or f"https://lambda.{settings.region}.amazonaws.com"
                return self._lambda(settings, self._endpoint(settings, url), access)
            case HttpFunction():
                return self._http(settings, model, settings.url, FixedHeaders(settings.headers))
            case GoogleFunction():
                return self._http(settings, model, settings.url, self._id_token(settings))
            case AzureFunction():
                url = settings.url.rstrip("/") + settings.route_prefix
                return self._http(settings, model, url, self._azure_access(settings))
            case _:
                assert_never(settings)

    def _lambda(
        self, settings: LocalFunction | AwsLambda, endpoint: Endpoint, access: Access
    ) -> LambdaCaller:
        target = LambdaTarget(
            endpoint=endpoint,
            function=settings.function,
            qualifier=settings.qualifier if isinstance(settings, AwsLambda) else "",
            max_payload_bytes=settings.limits.max_payload_bytes,
            max_response_bytes=settings.limits.max_response_bytes,
            is_streamed=_is_streamed(settings),
        )
        return LambdaCaller(target, self.parts.upstream, access)

    def _http(
        self,
        settings: AwsLambda | HttpFunction | GoogleFunction | AzureFunction,
        model: str,
        url: str,
        access: Access,
    ) -> HttpFunctionCaller:
        cold_start, instance = "x-cold-start", ""
        if not isinstance(settings, AwsLambda):
            cold_start, instance = settings.cold_start_header, settings.instance_header
        target = HttpTarget(
            name=model,
            endpoint=self._endpoint(settings, url),
            prefix=urlsplit(url).path.rstrip("/"),
            host=settings.host if isinstance(settings, HttpFunction) else "",
            max_payload_bytes=settings.limits.max_payload_bytes,
            max_response_bytes=settings.limits.max_response_bytes,
            cold_start_header=cold_start.lower(),
            instance_header=instance.lower(),
        )
        return HttpFunctionCaller(target, self.parts.upstream, access)

    def _endpoint(
        self, settings: AwsLambda | HttpFunction | GoogleFunction | AzureFunction, url: str
    ) -> Endpoint:
        base = parse_address(_origin(url))
        files = TlsPaths(settings.tls.ca_file, settings.tls.cert_file, settings.tls.key_file)
        tls = None
        if base.tls and files.all:
            tls = self._kept(("tls files", files), TlsFiles(files).fetch)
        return Endpoint(base, tls, settings.connect_timeout_s)

    # -- credentials -------------------------------------------------------------------------------

    def _signature(self, settings: AwsLambda) -> Signature:
        profile = settings.profile
        key = ("AWS credentials", profile) if profile else ("AWS credentials",)
        kept = self._kept(key, AwsChain(profile).fetch)
        return Signature(kept, Scope(settings.region), self.parts.wall_clock)

    def _id_token(self, settings: GoogleFunction) -> SecretHeader:
        audience = settings.audience or settings.url
        if settings.credentials_file is not None:
            file = settings.credentials_file
            fetch = FileTokens(file, audience).fetch
            token = self._kept(("ID token", audience, file), fetch)
        else:
            server = parse_address(_origin(settings.metadata_url))
            fetch = MetadataTokens(self.parts.upstream, server, audience).fetch
            token = self._kept(("ID token", audience, server.url), fetch)
        # Not `authorization`: that header stays the client's own.
        return SecretHeader("x-serverless-authorization", token, prefix="Bearer ")

    def _azure_access(self, settings: AzureFunction) -> Access:
        parts: list[Access] = []
        if settings.key_file is not None:
            path: Path = settings.key_file
            key = self._kept(("function key", path), SecretFile(path).fetch)
            parts.append(SecretHeader("x-functions-key", key))
        if settings.identity.resource:
            # The only header in which Azure looks for a token: the client's own does not survive.
            token = self._identity_token(settings.identity)
            parts.append(SecretHeader("authorization", token, prefix="Bearer "))
        return AllOf(tuple(parts))

    def _identity_token(self, identity: ManagedIdentity) -> Refresher[str]:
        if identity.token_file is not None:
            return self._workload_token(identity, identity.token_file)
        url = identity.url or METADATA_URL
        server = parse_address(_origin(url))
        source = IdentitySource(server, urlsplit(url).path or "/", identity.secret)
        wall_clock = self.parts.wall_clock
        tokens = IdentityTokens(
            self.parts.upstream, source, identity.resource, identity.client_id, wall_clock
        )
        key = ("identity token", identity.resource, identity.client_id, source)
        return self._kept(key, tokens.fetch)

    def _workload_token(self, identity: ManagedIdentity, file: Path) -> Refresher[str]:
        authority = parse_address(_origin(identity.authority))
        workload = Workload(authority, identity.tenant_id, identity.client_id, file)
        tokens = WorkloadTokens(
            self.parts.upstream, workload, identity.resource, self.parts.wall_clock
        )
        return self._kept(("workload token", identity.resource, workload), tokens.fetch)

    def _kept(self, key: tuple[object, ...], fetch: Fetch[T]) -> Refresher[T]:
        what = " ".join(str(part) for part in key)
        return self.credentials.get(key, lambda: Refresher(what, fetch, self.parts.wall_clock))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
