"""Prompts are fixed by their seed and differ from their first words on."""

from __future__ import annotations

from benchmarks.prompts import reading_prompt, story_prompt


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
