from __future__ import annotations

import asyncio
import time
import unicodedata

import pytest
from argon2 import PasswordHasher, extract_parameters

from mezzo.accounts.errors import TooBusy, Unacceptable
from mezzo.accounts.passwords import (
    MAX_LENGTH,
    MAX_WAITING,
    MIN_LENGTH,
    PasswordWork,
    hash_password,
    needs_rehash,
    verify_password,
)

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def kept() -> str:
    return hash_password(PASSWORD)


def test_only_the_same_password_is_right(kept: str) -> None:
    assert verify_password(PASSWORD, kept)
    assert not verify_password(PASSWORD + "r", kept)
    assert PASSWORD not in kept


def test_kept_as_argon2id_with_what_rfc_9106_asks_of_small_machines(kept: str) -> None:
    parameters = extract_parameters(kept)
    assert kept.startswith("$argon2id$")
    assert parameters.memory_cost >= 64 * 1024
    assert parameters.time_cost >= 3
    assert parameters.salt_len >= 16
    assert not needs_rehash(kept)
    assert kept != hash_password(PASSWORD)


@pytest.mark.parametrize("password", ["", "x" * (MIN_LENGTH - 1), "x" * (MAX_LENGTH + 1), "x" * 1_000_000])
def test_too_short_and_too_long_ones_are_refused(password: str) -> None:
    with pytest.raises(Unacceptable, match="12 to 1024 characters") as caught:
        hash_password(password, param="new")
    assert caught.value.param == "new"
    assert "xx" not in str(caught.value)


def test_length_is_counted_in_characters() -> None:
    assert verify_password("é" * MIN_LENGTH, hash_password("é" * MIN_LENGTH))
    assert verify_password("€" * MAX_LENGTH, hash_password("€" * MAX_LENGTH))


def test_what_another_keyboard_types_is_the_same_password() -> None:
    composed = "crème brûlée à midi"
    assert verify_password(unicodedata.normalize("NFD", composed), hash_password(composed))


@pytest.mark.parametrize("password", ["", "short", "\ud800" * 20, "x" * 1_000_000])
def test_what_can_be_no_password_is_wrong_and_no_error(kept: str, password: str) -> None:
    assert not verify_password(password, kept)


@pytest.mark.parametrize("password_hash", [None, "", "not a hash", "$argon2id$v=19$m=65536,t=3,p=4$x$y"])
def test_no_hash_and_a_broken_one_match_nothing(password_hash: str | None) -> None:
    assert not verify_password(PASSWORD, password_hash)


def test_parameters_of_other_times_are_told(kept: str) -> None:
    outdated = PasswordHasher(time_cost=1, memory_cost=8192).hash(PASSWORD)
    assert verify_password(PASSWORD, outdated)
    assert needs_rehash(outdated)


def test_nobody_takes_as_long_as_somebody(kept: str) -> None:
    def cost(password: str, password_hash: str | None) -> float:
        # Processor time of all threads, which other processes do not lengthen much; the least of two.
        costs = []
        for _ in range(2):
            before = time.process_time()
            verify_password(password, password_hash)
            costs.append(time.process_time() - before)
        return min(costs)

    usual = cost("a wrong password", kept)
    for password in (PASSWORD, "short", "x" * 5000):
        assert 0.5 < cost(password, None) / usual < 2


async def test_too_many_at_once_are_refused_and_the_rest_goes_on(kept: str) -> None:
    work = PasswordWork()
    tasks = [asyncio.create_task(work.verify(PASSWORD, kept)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TooBusy):
        await work.verify(PASSWORD, kept)
    for task in tasks[2:]:
        task.cancel()
    assert (await asyncio.gather(*tasks, return_exceptions=True))[:2] == [True, True]
    assert await work.verify(PASSWORD, kept)
