"""What is never shown: which values are secrets, and what stands in their place.

Covers credentials inside URLs, and values whose user-chosen name says that they are secret
(environment variables, header values, command arguments). It never decides what a setting means.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

MASK = "***"
_SECRET_NAME = re.compile(
    r"token|passw|secret|credential|authorization|cookie|sha256|(?:^|[-_. ])(?:api|access|private)?"
    r"[-_. ]?key(?:$|[-_. ])|apikey",
    re.IGNORECASE,
)
_SECRET_ARGUMENT = re.compile(r"(-{1,2}[^=\s]+|[A-Za-z_][A-Za-z0-9_.-]*)(=)(.*)", re.DOTALL)
_SECRET_QUERY = frozenset({"code", "sig", "signature"})
"""Query parameters that carry keys on function platforms, whose names do not say so."""
_USER_NAMED = frozenset({"env", "header"})


def is_secret_name(name: str) -> bool:
    """Whether a value with this name must not be shown."""
    return _SECRET_NAME.search(name) is not None


def mask_url(text: str) -> str:
    """`text` with the password, and secret query values, of a URL replaced."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    login, at, host = parts.netloc.rpartition("@")
    user, colon, _password = login.partition(":")
    netloc = f"{user}{colon}{MASK}{at}{host}" if colon else f"{login and MASK}{at}{host}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = "&".join(
        f"{quote(name)}={MASK if _is_secret_parameter(name) else quote(value)}"
        for name, value in pairs
    )
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _is_secret_parameter(name: str) -> bool:
    return is_secret_name(name) or name.lower() in _SECRET_QUERY


def mask_arguments(arguments: list[Any]) -> list[Any]:
    """Command arguments with `--token=...` and `--token ...` values replaced."""
    shown: list[Any] = []
    follows_secret = False
    for argument in arguments:
        match = _SECRET_ARGUMENT.fullmatch(str(argument))
        if follows_secret:
            shown.append(MASK)
        elif match and is_secret_name(match[1]):
            shown.append(f"{match[1]}={MASK}")
        else:
            shown.append(mask_url(argument) if isinstance(argument, str) else argument)
        text = str(argument)
        follows_secret = text.startswith("-") and "=" not in text and is_secret_name(text)
    return shown


def mask_secrets(settings: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A copy of a JSON value with everything secret replaced by `MASK`."""
    if isinstance(settings, dict):
        return {key: _mask_entry(key, value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [mask_secrets(item) for item in settings]
    return mask_url(settings) if isinstance(settings, str) else settings


def _mask_entry(key: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if key == "headers" and isinstance(value, dict):
        return dict.fromkeys(value, MASK)  # added to calls to authenticate them
    if key in _USER_NAMED and isinstance(value, dict):
        return {
            name: MASK if is_secret_name(name) and item else mask_secrets(item)
            for name, item in value.items()
        }
    if key == "secret":
        return MASK if value else value
    if key == "command" and isinstance(value, list):
        return mask_arguments(value)
    return mask_secrets(value)
