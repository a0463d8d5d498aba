"""What an attempt has cost."""

from typing import NamedTuple


class Spent(NamedTuple):
    """Money, and for a call of a function its memory times the seconds billed."""

    usd: float = 0.0
    gb_s: float = 0.0
