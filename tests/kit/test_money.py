from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.kit.money import as_number, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("50", 50 * 10**9),
        ("0.25", 250_000_000),
        ("0.000000001", 1),
        ("0", 0),
        ("9223372036.854775807", 2**63 - 1),
    ],
)
def test_amounts_are_exact(text: str, nano: int) -> None:
    assert parse_amount(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        ".5",
        "1.",
        "1,5",
        "0.0000000001",
        "9223372036.854775808",
        "NaN",
        "１",
        " 1",
        "1_0",
    ],
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError):
        parse_amount(text)


@given(st.integers(0, 2**63 - 1))
def test_what_is_written_reads_the_same(nano: int) -> None:
    assert parse_amount(format_amount(nano)) == nano


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0.00"), (123, "0.000000123"), (-(10**9), "-1.00"), (1_500_000_000, "1.50")]
)
def test_amounts_have_two_decimals_at_least(nano: int, text: str) -> None:
    assert format_amount(nano) == text


@given(st.integers(0, 8 * 10**15))
def test_numbers_are_exact_to_eight_million_units(nano: int) -> None:
    assert int(Decimal(json.dumps(as_number(nano))).scaleb(9).to_integral_value()) == nano
