"""Which rule applies to a request: the first that matches.

Knows nothing of backends' state; a rule only states a wish (`Route`).
"""

import re
from dataclasses import dataclass, field
from fnmatch import translate

from router.domain.decision import Backend, TraceStep
from router.domain.request import InferenceRequest, Priority
from router.policy.canary import Canary, Shadow

_NO_LIMIT = 1 << 62
_TENANT, _VERSION, _HEADER = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Glob:
    """A shell-style pattern (`*`, `?`, `[...]`), case-sensitive, compiled once."""

    pattern: str
    _matches: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_matches", re.compile(translate(self.pattern)))

    def matches(self, text: str) -> bool:
        """Whether the whole text fits the pattern."""
        return self._matches.match(text) is not None


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions that must all hold; an empty one always does. Bounds are inclusive bytes."""

    models: tuple[Glob, ...] = ()
    versions: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    headers: tuple[tuple[str, Glob], ...] = ()
    min_bytes: int = 0
    max_bytes: int = _NO_LIMIT

    def failed_on(self, request: InferenceRequest) -> str | None:
        """The name of the first condition that does not hold, None if all do."""
        if not self.min_bytes <= request.payload_bytes <= self.max_bytes:
            return "payload"
        if self.models and not self.fits_model(request.model):
            return "model"
        if self.versions and request.version not in self.versions:
            return "version"
        if self.tenants and request.tenant not in self.tenants:
            return "tenant"
        for name, glob in self.headers:
            value = request.headers.get(name)
            if value is None or not glob.matches(value):
                return f"header {name}"
        return None

    @property
    def needs(self) -> int:
        """What a request must have at all, as a set of bits."""
        needs = _TENANT if self.tenants else 0
        needs |= _VERSION if self.versions else 0
        return needs | (_HEADER if self.headers else 0)

    @property
    def sizes(self) -> tuple[int, int]:
        """The smallest size that fits, and the smallest that is too large."""
        return self.min_bytes, min(self.max_bytes + 1, _NO_LIMIT)

    def fits_model(self, model: str) -> bool:
        """Whether the model's name fits, whatever the other conditions say."""
        return not self.models or any(glob.matches(model) for glob in self.models)


@dataclass(frozen=True, slots=True)
class Route:
    """What a rule wishes: one backend, a share of requests for serverless, or `auto` (neither)."""

    backend: Backend | None = None
    serverless_share: float | None = None

    def wish(self, draw: float) -> Backend | None:
        """The backend wished for; `draw` in [0, 1) decides weighted routes, None means auto."""
        if self.serverless_share is None:
            return self.backend
        return Backend.SERVERLESS if draw < self.serverless_share else Backend.POOL


@dataclass(frozen=True, slots=True)
class Rule:
    """A named match and what it asks for; some of its requests may be tried elsewhere."""

    name: str
    match: Match
    route: Route
    canary: Canary | None = None
    shadow: Shadow | None = None
    priority: Priority | None = None

    @property
    def headers(self) -> set[str]:
        """The headers that the rule looks at."""
        names = {name for name, _ in self.match.headers}
        if self.canary is not None and self.canary.header:
            names.add(self.canary.header)
        return names

    def diverts(self, request: InferenceRequest) -> bool:
        """Whether the canary or the shadow may concern the request.

        Only inferences, and none for a version that it names itself, unless the rule is about
        versions.
        """
        if self.canary is None and self.shadow is None:
            return False
        is_pinned = request.version is not None and not self.match.versions
        return request.is_inference and not is_pinned


IMPLICIT_DEFAULT = Rule("implicit-default", Match(), Route())
"""Applies where no configured rule matches."""


def first_match(
    rules: tuple[Rule, ...], request: InferenceRequest, trace: list[TraceStep] | None = None
) -> Rule:
    """The first rule that matches, else `IMPLICIT_DEFAULT`."""
    for rule in rules:
        failed_on = rule.match.failed_on(request)
        if trace is not None:
            verdict = "matches" if failed_on is None else f"no match: {failed_on}"
            trace.append(TraceStep("rule", rule.name, verdict))
        if failed_on is None:
            return rule
    if trace is not None:
        trace.append(TraceStep("rule", IMPLICIT_DEFAULT.name, "matches: no configured rule does"))
    return IMPLICIT_DEFAULT


class RuleIndex:
    """The same answer as `first_match` in less time, for rules that are asked again and again.

    Most rules ask for a tenant, a version or a header. They are only looked at for requests that
    have one: there is a list for each combination of the three.
    """

    __slots__ = ("_by_facts", "_headers")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._headers = frozenset(name for rule in rules for name, _ in rule.match.headers)
        self._by_facts = tuple(
            tuple(rule for rule in rules if rule.match.needs & ~facts == 0) for facts in range(8)
        )

    def first_match(self, request: InferenceRequest) -> Rule:
        """The first rule that matches, else `IMPLICIT_DEFAULT`."""
        facts = 0
        if request.tenant is not None:
            facts |= _TENANT
        if request.version is not None:
            facts |= _VERSION
        if not self._headers.isdisjoint(request.headers):
            facts |= _HEADER
        return first_match(self._by_facts[facts], request)


def rules_for(rules: tuple[Rule, ...], model: str) -> tuple[Rule, ...]:
    """The rules that can match requests of this model, in order."""
    return tuple(rule for rule in rules if rule.match.fits_model(model))
