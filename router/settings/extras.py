"""Optional dependencies: a setting that needs a missing one is refused, with the remedy."""

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

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
            raise wrong(
                f"needs a package that is not installed{where}:"
                f' pip install "hybrid-router[{extra}]"'
            ) from None
        return value

    return check
