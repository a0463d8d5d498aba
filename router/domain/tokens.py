"""Tokens of a request to a language model, as its answer counts them."""

from typing import NamedTuple


class Tokens(NamedTuple):
    """What went in and what came out."""

    input: int = 0
    output: int = 0
