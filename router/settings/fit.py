"""Whether a function's settings can be true on its platform: times, memory and concurrency.

Gives warnings only: a limit may have been raised for an account. Pure; file sizes are passed in.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from router.settings.functions import (
    AwsLambda,
    AzureFunction,
    GoogleFunction,
    ServerlessSettings,
)
from router.settings.quantities import MIB
from router.settings.values import is_loopback

RUNTIME_BYTES = 200 * MIB
"""Memory that the interpreter, the runtime and one request need beside the model."""
LAMBDA_ZIP_BYTES = 250 * MIB
LAMBDA_PACKAGES_BYTES = 130 * MIB
"""What the runtime's packages take of a zip."""
LAMBDA_IMAGE_BYTES = 10 * 1024 * MIB
LAMBDA_INIT_S = 10.0
LAMBDA_CONCURRENCY = 1000
AZURE_INSTANCES = 200

Advice = Iterator[tuple[str, str]]
"""Pairs of a key below `serverless` and what is said about it."""


def unlikely_settings(function: ServerlessSettings) -> Advice:
    """What the settings alone tell."""
    if function.service_time_s > function.timeout_s:
        yield "timeout", "is shorter than service_time_ms: no request will be sent there"
    elif (
        isinstance(function, GoogleFunction | AzureFunction)
        and function.service_time_s + function.cold_start_s > function.timeout_s
    ):
        yield "timeout", "is shorter than a cold call takes (cold_start_ms and service_time_ms)"
    if isinstance(function, AwsLambda):
        if function.cold_start_s > LAMBDA_INIT_S:
            yield "cold_start_ms", "is over 10 s: Lambda then starts the init again, and bills it"
        if function.max_concurrency > LAMBDA_CONCURRENCY:
            yield "max_concurrency", "is over the 1000 that an AWS account has by default"
    if isinstance(function, AzureFunction):
        if function.max_concurrency > AZURE_INSTANCES:
            yield "max_concurrency", "is over the 200 instances of a consumption plan"
        if function.key_file is None and not function.identity.resource:
            yield "key_file", "is not set, nor is identity.resource: only open functions answer"
    if isinstance(function, GoogleFunction | AzureFunction) and _is_in_the_clear(function.url):
        yield "url", "is not https: credentials can be read on their way"


def _is_in_the_clear(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def unlikely_sizes(function: ServerlessSettings, model_bytes: int) -> Advice:
    """What the size of the model's files tells as well."""
    needed = model_bytes + RUNTIME_BYTES
    if function.memory_mb * MIB < needed:
        needed_mb = -(-needed // MIB)
        yield "memory_mb", f"is too little: the model and its runtime need {needed_mb} MiB"
    if isinstance(function, AwsLambda):
        if model_bytes > LAMBDA_IMAGE_BYTES:
            yield "kind", "cannot hold the model: a Lambda container image has at most 10 GB"
        elif model_bytes > LAMBDA_ZIP_BYTES - LAMBDA_PACKAGES_BYTES:
            yield "kind", "needs a container image: the model does not fit into a Lambda zip"


def missing_extra(function: ServerlessSettings) -> tuple[str, str] | None:
    """The package that its credentials need, and the extra that brings it."""
    match function:
        case AwsLambda(auth="iam"):
            return "botocore", "aws"
        case GoogleFunction() if function.credentials_file is not None:
            return "google.auth", "google"
        case _:
            return None
