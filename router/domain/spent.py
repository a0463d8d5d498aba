"""What an attempt has cost."""

from typing import NamedTuple


class Spent(NamedTuple):
    """Money for the time of a replica's slot, or for a call of a function (USD).

    `gb_s` is the function's memory times the seconds billed.
    """

    slot_usd: float = 0.0
    call_usd: float = 0.0
    gb_s: float = 0.0

    @property
    def usd(self) -> float:
        """All of it."""
        return self.slot_usd + self.call_usd
