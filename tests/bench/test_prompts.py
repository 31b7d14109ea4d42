"""Prompts are fixed by their seed and differ from their first words on."""

from __future__ import annotations

import pytest

from mezzo.bench.prompts import (
    chat_question,
    copy_prompt,
    reading_prompt,
    story_prompt,
    system_prompt,
    with_changed_words,
)


def test_the_seed_fixes_a_prompt() -> None:
    assert story_prompt(1, 7) == story_prompt(1, 7)
    assert story_prompt(1, 7) != story_prompt(2, 7)
    assert reading_prompt(1, 7, 20) == reading_prompt(1, 7, 20)


def test_prompts_differ_from_their_first_words_on() -> None:
    starts = {story_prompt(1, number)[:12] for number in range(100)}
    starts |= {reading_prompt(1, number, 5)[:12] for number in range(100)}
    assert len(starts) == 200


def test_a_reading_prompt_grows_with_its_sentences() -> None:
    assert reading_prompt(1, 1, 40).count(".") == 40


def test_every_chat_and_turn_has_a_question_of_its_own() -> None:
    questions = {chat_question(1, chat, turn) for chat in range(16) for turn in range(4)}
    assert len(questions) > 50  # later turns are drawn, and may meet
    assert len({chat_question(1, chat, 0) for chat in range(16)}) == 16
    assert system_prompt(1, 1) != system_prompt(1, 2)


def test_so_many_words_are_changed_and_no_others() -> None:
    text = copy_prompt(1, 1)
    changed = with_changed_words(text, 4, seed=1)
    pairs = list(zip(text.split(" "), changed.split(" "), strict=True))
    assert sum(before != after for before, after in pairs) == 4
    with pytest.raises(ValueError, match="3 words has no 4"):
        with_changed_words("one two three", 4, seed=1)
