import pytest
from pydantic_core import PydanticCustomError

from router.settings.quantities import (
    COUNT,
    DURATION,
    MILLISECONDS,
    PER_HOUR,
    SIZE,
    Quantity,
    duration_s,
    show_duration,
    show_size,
    size_bytes,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("2s", 2.0), ("5m", 300.0), ("1h", 3600.0), ("1.5s", 1.5), ("10us", 1e-5),
        ("0s", 0.0), ("2 s", 2.0),
        (2, None), ("2", None), ("-1s", None), ("1e3s", None), ("s", None), ("1d", None),
        ("٣s", None), (True, None), (None, None), ("1s ", None), ("9" * 16 + "s", None),
    ],
)  # fmt: skip
def test_durations_need_a_unit(text: object, seconds: float | None) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 * 1024**2), ("4.5MB", 4_500_000), ("100kB", 100_000), ("1 KiB", 1024),
        ("12B", 12), (0, 0), (77, 77), ("0.1kB", 100), ("2GiB", 2 * 1024**3),
        (True, None), (1.5, None), ("1TB", None), ("MB", None), ("-1kB", None), ([], None),
    ],
)  # fmt: skip
def test_sizes_are_bytes_with_decimal_or_binary_units(text: object, size: int | None) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 0.05, 0.1, 0.25, 1.0, 1.5, 60.0, 90.0, 5400.0])
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert duration_s(show_duration(seconds)) == seconds


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1536, 6_291_556, 3 * 1024**3])
def test_a_shown_size_reads_back(size: int) -> None:
    assert size_bytes(show_size(size)) == size


@pytest.mark.parametrize(
    ("quantity", "written", "stored"),
    [
        (Quantity(MILLISECONDS, 1, 1000), 250, 0.25),
        (Quantity(PER_HOUR, 0, 10), 3.6, 0.001),
        (Quantity(COUNT, 1, 5), 5, 5),
        (Quantity(DURATION, 0.05, 0.25), "50ms", 0.05),
        (Quantity(SIZE, 0, 10), 10, 10),
    ],
)
def test_a_quantity_is_stored_in_its_unit_and_shown_as_written(
    quantity: Quantity, written: object, stored: float
) -> None:
    assert quantity.read(written) == pytest.approx(stored)
    assert quantity.read(quantity.show(stored)) == pytest.approx(stored)


@pytest.mark.parametrize(
    "value",
    [0, 6, -1, 2.0, "3", True, None, float("nan"), float("inf"), [1], 10**30],
)
def test_a_count_outside_its_range_or_kind_is_refused(value: object) -> None:
    with pytest.raises(PydanticCustomError, match=r"must be a whole number in 1\.\.5"):
        Quantity(COUNT, 1, 5).read(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), True, "7"])
def test_a_number_must_be_finite(value: object) -> None:
    with pytest.raises(PydanticCustomError, match="must be"):
        Quantity(MILLISECONDS, 0, 1e300).read(value)
