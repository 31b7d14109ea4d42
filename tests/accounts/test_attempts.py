from __future__ import annotations

import pytest

from mezzo.accounts.attempts import MAX_BY_ADDRESS, MAX_BY_EMAIL, WINDOW_S, Attempts
from mezzo.accounts.errors import TooManyAttempts

HOME = "192.0.2.1"


def fail(
    attempts: Attempts, times: int, *, email: str = "a@b.example", address: str = HOME, now: float = 0
) -> None:
    for _ in range(times):
        attempts.begin(email, address, now)


def test_an_email_may_fail_so_often_from_anywhere() -> None:
    attempts = Attempts()
    for number in range(MAX_BY_EMAIL):
        attempts.begin("a@b.example", f"192.0.2.{number}", 5)
    with pytest.raises(TooManyAttempts) as caught:
        attempts.begin("a@b.example", "198.51.100.1", 65.5)
    assert caught.value.retry_after_s == WINDOW_S - 60
    fail(attempts, 1, email="c@b.example")


def test_an_address_may_fail_so_often_for_anybody() -> None:
    attempts = Attempts()
    for number in range(MAX_BY_ADDRESS):
        attempts.begin(f"{number}@b.example", HOME, 0)
    with pytest.raises(TooManyAttempts):
        attempts.begin("new@b.example", HOME, 0)
    attempts.begin("new@b.example", "192.0.2.2", 0)


def test_the_window_slides() -> None:
    attempts = Attempts()
    fail(attempts, MAX_BY_EMAIL - 1, now=0)
    fail(attempts, 1, now=100)
    with pytest.raises(TooManyAttempts):
        fail(attempts, 1, now=WINDOW_S - 0.1)
    fail(attempts, MAX_BY_EMAIL - 1, now=WINDOW_S)
    with pytest.raises(TooManyAttempts):
        fail(attempts, 1, now=WINDOW_S + 99)


def test_waiting_as_long_as_told_is_enough() -> None:
    attempts = Attempts()
    fail(attempts, MAX_BY_EMAIL, now=0.25)
    with pytest.raises(TooManyAttempts) as caught:
        fail(attempts, 1, now=10)
    fail(attempts, 1, now=10 + caught.value.retry_after_s)


def test_a_refused_attempt_does_not_lengthen_the_wait() -> None:
    attempts = Attempts()
    fail(attempts, MAX_BY_EMAIL, now=0)
    for _ in range(5):
        with pytest.raises(TooManyAttempts):
            fail(attempts, 1, now=WINDOW_S - 1)
    fail(attempts, 1, now=WINDOW_S)


def test_success_forgives_the_email_and_not_the_address() -> None:
    attempts = Attempts()
    for number in range(MAX_BY_ADDRESS - 1):
        attempts.begin(f"{number}@b.example", HOME, 0)
    for _ in range(3):  # somebody with an account of their own cannot guess on
        attempts.begin("mine@b.example", HOME, 0)
        attempts.succeed("mine@b.example", HOME)
    attempts.begin("other@b.example", HOME, 0)
    with pytest.raises(TooManyAttempts):
        attempts.begin("mine@b.example", HOME, 0)
    fail(attempts, MAX_BY_EMAIL, email="mine@b.example", address="192.0.2.2")


def test_one_owner_s_ipv6_addresses_count_together() -> None:
    attempts = Attempts()
    for number in range(MAX_BY_ADDRESS):
        attempts.begin(f"{number}@b.example", f"2001:db8:1:2::{number:x}", 0)
    with pytest.raises(TooManyAttempts):
        attempts.begin("new@b.example", "2001:db8:1:2:ffff::1", 0)
    attempts.begin("new@b.example", "2001:db8:1:3::1", 0)


def test_an_ipv4_address_is_the_same_in_ipv6() -> None:
    attempts = Attempts()
    for number in range(MAX_BY_ADDRESS):
        attempts.begin(f"{number}@b.example", "::ffff:192.0.2.1", 0)
    with pytest.raises(TooManyAttempts):
        attempts.begin("new@b.example", "192.0.2.1", 0)
    attempts.begin("new@b.example", "::ffff:192.0.2.2", 0)
