"""Optional dependencies: a setting that needs a missing one is refused, with the remedy."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from pydantic_core import PydanticCustomError

from router.settings.quantities import wrong

T = TypeVar("T")


def needs_extra(module: str, extra: str, where: str = "") -> Callable[[T], T]:
    """A validator that lets any value pass if `module` can be imported; `where` says when it must.

    It really imports, so that what fails fails here; and because files are loaded in a thread, the
    event loop need not read the module when the setting takes effect.
    """

    def check(value: T) -> T:
        try:
            import_module(module)
        except ImportError:
            raise _missing(extra, where) from None
        return value

    return check


def child_needs_extra(module: str, extra: str, where: str = "") -> Callable[[T], T]:
    """As `needs_extra`, for a module that only processes started by the gateway import.

    Only looks for it: a gateway has no use for the memory of an inference runtime.
    """

    def check(value: T) -> T:
        if not is_installed(module):
            raise _missing(extra, where)
        return value

    return check


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported, but its parents are."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _missing(extra: str, where: str) -> PydanticCustomError:
    return wrong(
        f'needs a package that is not installed{where}: pip install "hybrid-router[{extra}]"'
    )
