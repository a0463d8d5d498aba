"""Settings of a model's function, one group for each platform.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from router.settings.calls import (
    LAMBDA_STREAM_BYTES,
    AnyFunction,
    AzureLimits,
    FunctionLimits,
    HttpLimits,
    RemoteFunction,
)
from router.settings.extras import child_needs_extra
from router.settings.prices import FunctionPrice
from router.settings.quantities import (
    COUNT,
    DURATION,
    HOUR_S,
    NUMBER,
    Quantity,
    wrong,
)
from router.settings.section import Section
from router.settings.values import FilePath, Text, Url

FunctionName = Annotated[
    str,
    Text(
        r"[A-Za-z0-9._:/-]{1,200}",
        "a function name or ARN of 1..200 characters of A-Z a-z 0-9 . _ : / -",
    ),
]
Region = Annotated[
    str, Text(r"[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}", "an AWS region such as eu-central-1")
]
Qualifier = Annotated[
    str,
    Text(
        r"(\$LATEST|[A-Za-z0-9_-]{1,128})?",
        "a version, alias, $LATEST or empty, at most 128 characters of A-Z a-z 0-9 _ -",
    ),
]
Profile = Annotated[
    str,
    Text(
        r"[A-Za-z0-9._@+ -]{0,128}",
        "a profile's name of 0..128 characters of A-Z a-z 0-9 . _ @ + -",
    ),
]
EndpointUrl = Annotated[str, Url(("http", "https"), empty=True)]
FunctionUrl = Annotated[str, Url(("http", "https"))]
Audience = Annotated[str, Text(r"[!-~]{0,1000}", "a text without spaces, or empty")]
HostName = Annotated[
    str, Text(r"[A-Za-z0-9._:-]{0,253}", "a host name, with or without a port, or empty")
]
HeaderName = Annotated[
    str,
    Text(r"[A-Za-z0-9_-]{0,100}", "a header's name of A-Z a-z 0-9 _ -, or empty"),
]
AddedHeader = Annotated[
    str,
    Text(
        r"(?i)(?!(host|content-length|connection|transfer-encoding|te|upgrade|trailer|keep-alive)$)"
        r"(?!proxy-)[A-Za-z0-9_-]{1,100}",
        "a header's name of A-Z a-z 0-9 _ - that is not about the connection or the body's length",
    ),
]
AddedValue = Annotated[str, Text(r"[ -~]{1,4096}", "a text of 1..4096 ASCII characters")]
RoutePrefix = Annotated[
    str, Text(r"(/[A-Za-z0-9._~-]+)*", "a path such as /api, without a slash at its end, or empty")
]


class LocalFunction(AnyFunction):
    """A function on this machine's own scale-to-zero host."""

    kind: Annotated[
        Literal["local"], AfterValidator(child_needs_extra("awslambdaric", "lambda"))
    ] = Field(description="a function host started by the gateway")
    function: FunctionName = Field(
        description="function name", json_schema_extra={"default": "the model's name"}
    )
    limits: FunctionLimits = Field(
        default_factory=FunctionLimits, description="hard limits of the platform"
    )
    init_timeout_s: Annotated[float, Quantity(DURATION, 0.1, 900.0)] = Field(
        default=10.0, alias="init_timeout", description="time an environment has to start"
    )


class ManagedInstances(Section):
    """EC2 instances that AWS runs a function on, all the time."""

    count: Annotated[int, Quantity(COUNT, 0, 1000)] = Field(
        default=0, description="instances kept running; 0: the function runs on demand"
    )
    price_per_instance_hour: Annotated[float, Quantity(NUMBER, 0, 1000)] = Field(
        default=0.0,
        validate_default=True,
        description="USD for one instance and hour, without the fee for managing it",
    )

    @field_validator("price_per_instance_hour")
    @classmethod
    def _instances_have_a_price(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("count") and not value:
            raise wrong("is required, above 0, where count is")
        return value


class AwsLambda(RemoteFunction):
    """An AWS Lambda function, called through the Invoke API or by its Function URL."""

    kind: Literal["aws_lambda"] = Field(description="an AWS Lambda function")
    function: FunctionName = Field(description="function name or ARN")
    qualifier: Qualifier = Field(default="", description="version or alias; empty: the latest")
    region: Region = Field(description="AWS region; it also selects the price")
    endpoint_url: EndpointUrl = Field(
        default="", description="another Invoke endpoint; empty: AWS's own"
    )
    function_url: EndpointUrl = Field(
        default="",
        validate_default=True,
        description="the function's URL, called instead of the Invoke API",
    )
    auth: Literal["iam", "none"] = Field(
        default="iam", description="iam: calls are signed; none: for emulators and open URLs"
    )
    provisioned_concurrency: Annotated[int, Quantity(COUNT, 0, 10_000)] = Field(
        default=0,
        description="environments that the account keeps warm for this qualifier, and pays for",
    )
    managed_instances: ManagedInstances = Field(
        default_factory=ManagedInstances,
        description="instances that the function runs on: never cold, paid by the hour",
    )
    profile: Profile = Field(
        default="", description="AWS profile, also for an assumed role; empty: the standard chain"
    )
    invoke_mode: Literal["buffered", "response_stream"] = Field(
        default="buffered",
        description="response_stream: answers come as they are written, up to 200 MB of them",
    )
    limits: FunctionLimits = Field(
        default_factory=FunctionLimits,
        validate_default=True,
        description="hard limits of the platform",
    )

    @field_validator("limits")
    @classmethod
    def _streams_may_be_long(cls, value: FunctionLimits, info: ValidationInfo) -> FunctionLimits:
        is_given = "max_response_bytes" in value.model_fields_set
        if is_given or info.data.get("invoke_mode") != "response_stream":
            return value
        return value.model_copy(update={"max_response_bytes": LAMBDA_STREAM_BYTES})

    @field_validator("provisioned_concurrency")
    @classmethod
    def _can_be_used(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("max_concurrency", value):
            raise wrong("is over max_concurrency: no call would use the rest")
        is_named = info.data.get("qualifier", "x") or info.data.get("function_url", "x")
        if value and (not is_named or info.data.get("qualifier") == "$LATEST"):
            raise wrong("needs a version or alias as qualifier, or its Function URL")
        return value

    @field_validator("managed_instances")
    @classmethod
    def _kept_in_one_way(cls, value: ManagedInstances, info: ValidationInfo) -> ManagedInstances:
        if value.count and info.data.get("provisioned_concurrency"):
            raise wrong("excludes provisioned_concurrency: instances do not start cold")
        return value

    @field_validator("function_url")
    @classmethod
    def _one_way_to_call(cls, value: str, info: ValidationInfo) -> str:
        if value and (info.data.get("qualifier") or info.data.get("endpoint_url")):
            raise wrong("excludes qualifier and endpoint_url: a Function URL has its own")
        return value


class _UrlFunction(RemoteFunction):
    """What every function called by URL has."""

    url: FunctionUrl = Field(description="URL of the function; a request's own path is appended")
    memory_mb: Annotated[int, Quantity(COUNT, 128, 32_768)] = Field(
        default=1769, description="memory of one environment in MiB; the price follows it"
    )
    limits: HttpLimits = Field(
        default_factory=HttpLimits, description="hard limits of the platform"
    )
    cold_start_header: HeaderName = Field(
        default="x-cold-start",
        description="header that says true after a cold start; where none does, the time tells",
    )
    instance_header: HeaderName = Field(
        default="",
        description="header of an answer with the environment's id: a new one was a cold start",
    )


class HttpFunction(_UrlFunction):
    """Any function that is called by URL: Knative, OpenFaaS, and others."""

    kind: Literal["http_function"] = Field(
        description="a function called by URL: Knative, OpenFaaS, any other"
    )
    price: FunctionPrice = Field(
        description="what a call costs; required unless the prices file says it"
    )
    host: HostName = Field(
        default="", description="Host header, by which Knative routes; empty: the URL's own"
    )
    headers: Mapping[AddedHeader, AddedValue] = Field(
        default={}, max_length=20,
        description="headers added to each call; secrets come from the environment: ${NAME}",
    )  # fmt: skip
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, HOUR_S)] = Field(
        default=30.0, alias="timeout", description="time limit of one call"
    )


class GoogleFunction(_UrlFunction):
    """A Google Cloud Function or Cloud Run service, called with an ID token."""

    kind: Literal["google_function"] = Field(
        description="a Google Cloud Function or Cloud Run service"
    )
    audience: Audience = Field(default="", description="audience of the ID tokens; empty: the URL")
    credentials_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="a key, workload identity or impersonation; empty: the metadata server",
    )
    metadata_url: FunctionUrl = Field(
        default="http://metadata.google.internal", description="the metadata server"
    )
    vcpus: Annotated[float, Quantity(NUMBER, 0.08, 8)] = Field(
        default=1.0, description="virtual CPUs of one environment; the price follows them"
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, HOUR_S)] = Field(
        default=30.0, alias="timeout", description="time limit of one call"
    )


class ManagedIdentity(Section):
    """Tokens of a managed or workload identity, for apps with Microsoft Entra authentication."""

    resource: Audience = Field(
        default="", description="whom the tokens are for, such as api://my-app; empty: none"
    )
    client_id: Annotated[str, Text(r"[A-Za-z0-9-]{0,64}", "a client id, or empty")] = Field(
        default="", description="a user-assigned identity; empty: the system's own"
    )
    url: EndpointUrl = Field(
        default="", description="IDENTITY_ENDPOINT of App Service; empty: the metadata service"
    )
    secret: Annotated[str, Text(r"[!-~]{0,1000}", "a text without spaces, or empty")] = Field(
        default="", description="IDENTITY_HEADER of App Service; empty: the metadata service"
    )
    tenant_id: Annotated[str, Text(r"[A-Za-z0-9.-]{0,100}", "a tenant's id, or empty")] = Field(
        default="", description="the tenant of a workload identity, as on AKS"
    )
    authority: FunctionUrl = Field(
        default="https://login.microsoftonline.com", description="who gives it tokens"
    )
    token_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="file with its own token; empty: a managed identity"
    )

    @field_validator("token_file")
    @classmethod
    def _names_who_it_is(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not (
            info.data.get("tenant_id", "x") and info.data.get("client_id", "x")
        ):
            raise wrong("needs client_id and tenant_id")
        return value


class AzureFunction(_UrlFunction):
    """An Azure Function, called with a function key, a managed identity's token, or both."""

    kind: Literal["azure_function"] = Field(description="an Azure Function")
    key_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="file that holds the function key; empty: no key is needed"
    )
    identity: ManagedIdentity = Field(
        default_factory=ManagedIdentity, description="tokens of a managed identity"
    )
    route_prefix: RoutePrefix = Field(
        default="/api", description="the route prefix in the function app's host.json"
    )
    limits: AzureLimits = Field(
        default_factory=AzureLimits, description="hard limits of the platform"
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 230.0)] = Field(
        default=30.0, alias="timeout", description="time limit of one call; Azure cuts at 230 s"
    )


ServerlessSettings = Annotated[
    LocalFunction | AwsLambda | HttpFunction | GoogleFunction | AzureFunction,
    Field(discriminator="kind"),
]


def billed_vcpus(function: ServerlessSettings) -> float:
    """The CPUs that a price per vCPU is for; platforms that do not let them be chosen give one."""
    return function.vcpus if isinstance(function, GoogleFunction) else 1.0
