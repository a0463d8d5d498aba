"""What is valid but probably not meant: rules that never act, limits that a platform does not have.

Gives warnings only; a configuration is never refused for them.
"""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from router.settings.document import Document
from router.settings.fit import unlikely_settings
from router.settings.keys import ApiKey
from router.settings.pools import StaticPool
from router.settings.problems import KeyPath, Problem
from router.settings.rules import RouteName, RuleSettings
from router.settings.schema import ModelSettings, Settings
from router.settings.server import ServerSettings
from router.settings.sharing import unused_sharing
from router.settings.values import is_loopback

_SHOWN_MODELS = 3


def warnings_about(settings: Settings, document: Document) -> tuple[Problem, ...]:
    """The warnings, each at its line, in the order of the rules."""
    found = [
        *_about_the_admin_port(settings.server),
        *_about_functions(settings),
        *_about_pools(settings),
        *_about_rules(settings),
    ]
    return tuple(document.problem(path, message) for path, message in found)


Advice = Iterator[tuple[KeyPath, str]]


def _about_the_admin_port(server: ServerSettings) -> Advice:
    if not is_loopback(server.admin_listen.host) and server.admin_token_file is None:
        message = "is not a loopback address: whoever reaches it may read, reload and drain"
        yield ("server", "admin_listen"), f"{message}; set server.admin_token_file"


def _about_functions(settings: Settings) -> Advice:
    for index, model in enumerate(settings.models):
        for key, message in unlikely_settings(model.serverless) if model.serverless else ():
            yield ("models", index, "serverless", key), message


def _about_pools(settings: Settings) -> Advice:
    for index, model in enumerate(settings.models):
        pool = model.pool
        if isinstance(pool, StaticPool) and pool.scale is None:
            for key in sorted({"min_replicas", "max_replicas"} & pool.model_fields_set):
                message = "has no effect without scale: each address of urls is a replica"
                yield ("models", index, "pool", key), message
    yield from unused_sharing(settings)


def _about_rules(settings: Settings) -> Advice:
    catch_all: str | None = None
    for index, rule in enumerate(settings.rules):
        if catch_all is not None:
            yield ("rules", index), f"is never reached: rule {catch_all} matches everything"
            continue
        yield from _about_rule(index, rule, settings.models)
        if rule.match.is_everything:
            catch_all = rule.name
    if settings.rules and catch_all is None:
        last = len(settings.rules) - 1
        yield ("rules", last), "does not match everything: requests without a rule are routed auto"


def unknown_models(keys: Iterable[ApiKey], models: Sequence[str]) -> Advice:
    """Patterns of API keys' models that no model has, by the places in their file."""
    fits: dict[str, bool] = dict.fromkeys(models, True)
    for index, key in enumerate(keys):
        for pattern in key.models:
            if pattern not in fits:
                fits[pattern] = any(fnmatchcase(name, pattern) for name in models)
            if not fits[pattern]:
                yield (index, "models"), f"matches no model ({pattern})"


def _about_rule(index: int, rule: RuleSettings, models: tuple[ModelSettings, ...]) -> Advice:
    globs = rule.match.model or ("*",)
    matched = [model for model in models if any(fnmatchcase(model.name, g) for g in globs)]
    for glob in globs:
        if not any(fnmatchcase(model.name, glob) for model in models):
            yield ("rules", index, "match", "model"), f"matches no model ({glob})"
    lacking = [model.name for model in matched if not _has_route(model, rule)]
    if lacking:
        names = ", ".join(lacking[:_SHOWN_MODELS]) + (", ..." if lacking[_SHOWN_MODELS:] else "")
        yield ("rules", index, "route"), f"names a backend that these models do not have: {names}"


def _has_route(model: ModelSettings, rule: RuleSettings) -> bool:
    match rule.route:
        case RouteName.POOL:
            return model.pool is not None
        case RouteName.SERVERLESS:
            return model.serverless is not None
        case _:
            return True
