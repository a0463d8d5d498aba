"""Which statuses of a model server mean that another place should be tried. Pure."""

from router.domain.errors import AttemptError, UpstreamBrokenError, UpstreamRejectedError


def refusal_of(status: int, who: str) -> AttemptError | None:
    """The error an answer stands for, None if it is the model's own answer.

    429 and 503 say that there is no capacity, 502 and 504 that something in between broke. A 500
    is the model's: it would most likely fail everywhere, so it is passed on.
    """
    if status in {429, 503}:
        return UpstreamRejectedError(f"{who} is busy (status {status})")
    if status in {502, 504}:
        return UpstreamBrokenError(f"{who} failed (status {status})")
    return None
