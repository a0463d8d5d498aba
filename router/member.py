"""One of several processes that serve one port: what its parent tells it, and asks of it."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from router.settings.loader import Loaded
from router.settings.schema import Settings
from router.settings.shares import shared
from router.settings.values import Address

SNAPSHOT_PATH = "/snapshot"
"""Where a process tells its parent all its metric series, on its own socket only."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process's place among the others.

    It is the process `number`, from 1, `of` so many. All listen on `host` and `port`; this one
    answers its parent on the Unix socket `control`.
    `redis_url` is empty where the settings have one.
    """

    number: int
    of: int
    parent: int
    host: str
    port: int
    control: str
    redis_url: str

    @property
    def sockets(self) -> Path:
        """The folder of the parent's sockets, where the function host is, too."""
        return Path(self.control).parent

    def encode(self) -> str:
        """As an argument of the process."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "Member":
        """The inverse of `encode`. Raises msgspec.ValidationError or DecodeError."""
        return msgspec.json.decode(text, type=cls)

    def applied(self, loaded: Loaded) -> Loaded:
        """The configuration with what the parent decides in place of what the file says."""
        return replace(loaded, settings=self._settings(loaded.settings))

    def _settings(self, settings: Settings) -> Settings:
        settings = shared(settings, self.number, self.of)
        server = settings.server.model_copy(update={"listen": Address(self.host, self.port)})
        state = settings.shared_state
        if self.redis_url:
            state = state.model_copy(update={"redis_url": self.redis_url})
        return settings.model_copy(update={"server": server, "shared_state": state})
