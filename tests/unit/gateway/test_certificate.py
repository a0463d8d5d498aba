"""The warning ahead of a certificate's end: when, how often, and for which certificate."""

import asyncio
import logging

import pytest

from router.gateway.admin.certificate import CertificateWatch, described, warning_of

DAY = 86_400.0
END = 1000 * DAY


@pytest.mark.parametrize(
    ("left_days", "told"),
    [
        (14.01, None),
        (14, "expires in 14.0 days"),
        (0.5, "expires in 0.5 days"),
        (0, "has expired"),
        (-3, "has expired"),
    ],
)
def test_it_is_told_fourteen_days_ahead(left_days: float, told: str | None) -> None:
    warning = warning_of(END, END - left_days * DAY)
    assert (warning is None) if told is None else (warning is not None and told in warning)


def test_without_a_certificate_there_is_nothing_to_say() -> None:
    assert described(None, 0.0) is None
    assert described(END, 0.0) == {"expires_at": END, "warning": None}


async def test_it_is_logged_once_a_day_until_the_certificate_is_renewed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, ends = END - 15 * DAY, [END]
    looks = 0

    async def sleep(seconds: float) -> None:
        nonlocal now, looks
        now, looks = now + seconds, looks + 1
        if now >= END - 11.5 * DAY and ends[0] == END:
            ends[0] = END + 90 * DAY
        if now > END:
            raise asyncio.CancelledError

    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        await CertificateWatch(lambda: ends[0], lambda: now, sleep).run()
    told = [record.message for record in caplog.records]
    assert looks > 20_000
    assert [message.split(" in ")[1] for message in told] == [
        "14.0 days",
        "14.0 days",
        "13.0 days",
        "12.0 days",
    ]
