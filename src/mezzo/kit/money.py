"""Amounts of money: exact integers of nano-units inside, decimals of whole units where people see them."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal

NANO = 10**9
"""Nano-units in one unit of a currency."""

_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?", re.ASCII)
_MAX = 2**63 - 1
_SHOWN_DECIMALS = 2
_CENT = Decimal("0.01")


def parse_amount(text: str) -> int:
    """Return the nano-units of an amount such as `50` or `0.25`.

    Raises: ValueError for what is no amount, is negative, is finer than nano-units, or beyond 64 bits of them.
    """
    if not _AMOUNT.fullmatch(text):
        raise ValueError("an amount is a number such as 50 or 0.25, with at most nine decimals")
    amount = int(Decimal(text).scaleb(9))
    if amount > _MAX:
        raise ValueError(f"an amount is at most {format_amount(_MAX)}")
    return amount


def format_amount(nano: int) -> str:
    """Return an amount in whole units, exact, with at least two decimals: `50.00`, `0.000000123`."""
    whole, fraction = divmod(abs(nano), NANO)
    decimals = f"{fraction:09}".rstrip("0").ljust(_SHOWN_DECIMALS, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{decimals}"


def as_number(nano: int) -> float:
    """Return an amount in whole units for JSON: the shortest number that reads as it, exact to eight million units."""
    return float(format_amount(nano))


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
