"""No garbage is looked for during a start, and all of it afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mezzo.kit.heap import growing_heap


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_the_collector_rests_until_it_is_told() -> None:
    with growing_heap() as is_grown:
        assert not gc.isenabled()
        is_grown()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 1000
    assert gc.isenabled()


def test_the_collector_rests_no_longer_than_the_block() -> None:
    with pytest.raises(OSError, match="no weights"), growing_heap():
        raise OSError("no weights")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with growing_heap() as is_grown:
        is_grown()
    assert not gc.isenabled()
