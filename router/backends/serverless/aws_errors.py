"""What the answers of AWS Lambda's API mean: error documents, handler failures, billed durations.

Pure: status, headers and payload in, a domain error or durations out. Never repeats a message of
the platform, which may name accounts or echo a signed request; only its error type.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping

import msgspec

from router.domain.errors import (
    AnswerTooLargeError,
    AttemptError,
    CallRefusedError,
    EncodedTooLargeError,
    FunctionUnfitError,
    ModelFailedError,
    PlatformRefusedError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
)

_BILLED = re.compile(r"Billed Duration: ([0-9.]{1,12}) ms")
_INIT = re.compile(r"Init Duration: ([0-9.]{1,12}) ms")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,79}")
_TIMED_OUT = re.compile(r"Task timed out after [0-9.]{1,12} seconds")

NOT_YET = frozenset(
    {
        "ResourceConflictException",  # the function is being created or updated
        "ResourceNotReadyException",
        "SnapStartNotReadyException",
        "EC2ThrottledException",
        "ENILimitReachedException",
        "SubnetIPAddressLimitReachedException",
    }
)
"""Error types that pass by themselves and under which nothing ran, whatever their status."""

_UNFIT = frozenset(
    {
        "Runtime.ExitError",  # also of an environment that ran out of memory
        "Runtime.HandlerNotFound",
        "Runtime.ImportModuleError",
        "Runtime.InvalidEntrypoint",
        "Runtime.InvalidWorkingDir",
        "Runtime.MalformedHandlerName",
        "Runtime.UserCodeSyntaxError",
    }
)
"""What Lambda, not the handler, says of an environment that did not start or is gone."""


class _Failure(msgspec.Struct):
    """Error documents of the platform and of a failed handler."""

    errorType: str = ""  # noqa: N815  wire names
    errorMessage: str = ""  # noqa: N815
    type_: str = msgspec.field(default="", name="__type")
    Reason: str = ""


def _failure(payload: bytes) -> _Failure:
    try:
        return msgspec.json.decode(payload, type=_Failure)
    except msgspec.DecodeError:
        return _Failure()


def api_error(status: int, headers: Mapping[str, str], payload: bytes) -> AttemptError:
    """The error that a status other than 200 of the Invoke API stands for."""
    failure = _failure(payload)
    kind = _kind(headers.get("x-amzn-errortype", "") or failure.type_) or f"status {status}"
    if status == 413:
        return EncodedTooLargeError("the platform says that the request is too large")
    if status == 429:
        message = f"the platform throttles the function ({_kind(failure.Reason) or kind})"
        return UpstreamRejectedError(message, retry_after_s(headers))
    if status == 503 or kind in NOT_YET:
        message = f"the platform is not available ({kind})"
        return UpstreamRejectedError(message, retry_after_s(headers))
    if status in {401, 403}:
        return PlatformRefusedError(f"the platform refuses the gateway's credentials ({kind})")
    if status < 500:
        what = "know the function" if status == 404 else "take such a call"
        return CallRefusedError(f"the platform does not {what} ({kind})")
    return UpstreamBrokenError(f"the platform failed the call ({kind})")


def function_error(payload: bytes, log_result: str, code: str = "") -> AttemptError:
    """The error that a failed invocation (status 200, X-Amz-Function-Error) stands for.

    `log_result` is the tail of its log, `code` what the end of a stream calls it.
    """
    failure = _failure(payload)
    kind = _kind(failure.errorType) or _kind(code) or "no error type"
    told = failure.errorMessage or payload.decode("utf-8", "replace")
    if "Sandbox.Timedout" in {kind, code} or _TIMED_OUT.search(told):
        return TimeLimitError("the function ran into its time limit")
    if kind == "Function.ResponseSizeTooLarge":
        return AnswerTooLargeError("the function's answer is over the platform's limit")
    if kind in _UNFIT or kind.startswith("Extension."):
        return FunctionUnfitError(f"the function's environment failed ({kind})")
    return ModelFailedError(f"the function failed ({kind})", *billing(log_result))


def _kind(text: str) -> str:
    """An error type without namespace and URL; empty if it is not one."""
    found = _KIND.match(text.rpartition("#")[2])
    return found[0] if found else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; None without one, or with a date."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def billing(log_result: str) -> tuple[float | None, float | None]:
    """Billed and init seconds from the tail of the invocation's log, None where not said."""
    try:
        log = b64decode(log_result, validate=True).decode("utf-8", "replace")
    except (Base64Error, ValueError):
        return None, None
    report = log[log.rfind("REPORT RequestId") :] if "REPORT RequestId" in log else ""
    billed, init = _BILLED.search(report), _INIT.search(report)
    return (
        float(billed[1]) / 1e3 if billed else None,
        float(init[1]) / 1e3 if init else None,
    )
