"""Amounts of money as documents show them. They are integers of nano-units, 10^-9 of a currency; nothing is a float."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

_CENT = Decimal("0.01")


def exact_text(nano: int) -> str:
    """Write an amount in units of the currency with all of its nine decimals, e.g. `12.345678900`."""
    return f"{Decimal(nano).scaleb(-9):.9f}"


def rounded_text(nano: int) -> str:
    """Write an amount rounded to cents, a half to the even one: 0.125 is `0.12`, and 0.135 is `0.14`."""
    return str(Decimal(nano).scaleb(-9).quantize(_CENT, ROUND_HALF_EVEN))


def decimal_text(amount: Decimal) -> str:
    """Write an amount in units of the currency with all of its decimals, and at least two: `7.50`, `0.0000004`."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
