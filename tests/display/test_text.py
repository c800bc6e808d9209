"""Numbers and names as people read them."""

import pytest

from hellods.display.text import number, percent, printable, si, summary


@pytest.mark.parametrize(("share", "shown"), [(0.5117, "51.2"), (-0.0141, "−1.4"), (0, "0.0"), (None, "–")])
def test_share_in_percent(share: float | None, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(("spread", "shown"), [(0.006, "51.2 ± 0.6"), (None, "51.2")])
def test_mean_has_its_spread_if_it_has_one(spread: float | None, shown: str) -> None:
    assert summary({"mean": 0.512, "std": spread}) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.00934, "0.00934"), (1.216, "1.22"), (999.6, "1,000"), (12345.6, "12,346"), (None, "–")],
)
def test_number_keeps_three_digits_and_what_is_before_the_point(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 "), (999, "999 "), (999_600, "1 M"), (1.234e9, "1.23 G"), (None, "–")],
)
def test_count_has_a_prefix(value: float | None, shown: str) -> None:
    assert si(value) == shown


def test_what_could_steer_a_reader_is_replaced() -> None:
    assert printable("a\x1b[2J\n\u202eb é 飛") == "a�[2J��b é 飛"
