"""Engine processes that are launched before anybody asks for one."""

from __future__ import annotations

import pytest

from mezzo.engine.launch import EarlyLauncher, EngineProcess


def test_the_first_process_is_the_one_that_was_launched_early() -> None:
    with EarlyLauncher() as launch:
        first, second = launch(), launch()
        try:
            assert first.process.pid < second.process.pid
            assert first.process.poll() is second.process.poll() is None
        finally:
            for launched in (first, second):
                launched.discard()


def test_a_process_that_was_taken_outlives_the_block() -> None:
    with EarlyLauncher() as launch:
        taken = launch()
    try:
        assert taken.process.poll() is None
    finally:
        taken.discard()


def test_a_process_that_nobody_asked_for_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[EngineProcess] = []
    inner = EngineProcess

    def remember(*args: object) -> EngineProcess:
        launched.append(inner(*args))  # type: ignore[arg-type]
        return launched[-1]

    monkeypatch.setattr("mezzo.engine.launch.EngineProcess", remember)
    with pytest.raises(ValueError, match="a setting"), EarlyLauncher():
        raise ValueError("a setting is wrong")
    (early,) = launched
    assert early.process.returncode is not None
    assert early.socket.fileno() == -1
