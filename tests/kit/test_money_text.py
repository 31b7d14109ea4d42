"""Amounts of money as text."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mezzo.kit.money import decimal_text, exact_text, rounded_text


@pytest.mark.parametrize(
    ("nano", "exact", "rounded"),
    [
        (0, "0.000000000", "0.00"),
        (1, "0.000000001", "0.00"),
        (5_000_000, "0.005000000", "0.00"),  # a half goes to the even cent
        (15_000_000, "0.015000000", "0.02"),
        (5_000_001, "0.005000001", "0.01"),
        (2**63 - 1, "9223372036.854775807", "9223372036.85"),
        (-1_250_000_000, "-1.250000000", "-1.25"),
    ],
)
def test_amounts_as_text(nano: int, exact: str, rounded: str) -> None:
    assert (exact_text(nano), rounded_text(nano)) == (exact, rounded)


def test_decimals_as_text() -> None:
    assert [decimal_text(Decimal(text)) for text in ("7.5", "24", "0.000000400", "1E+3", "1.23E-7")] == [
        "7.50",
        "24.00",
        "0.0000004",
        "1000.00",
        "0.000000123",
    ]
