"""Prompts: plain English, fixed by a seed, no two alike.

Every prompt starts with its number, so a prefix cache can reuse the chat template's first tokens and
nothing else, unless a workload is about just that. Token counts are SmolLM2's, without the chat template.
"""

from __future__ import annotations

import random

_PEOPLE = [
    "lighthouse keeper", "clockmaker", "retired captain", "young botanist", "night watchman", "piano tuner",
    "mountain guide", "village doctor", "ferry pilot", "glass blower", "map maker", "bee keeper",
]  # fmt: skip
_PLACES = [
    "a fishing town in the north", "an island without trees", "a valley behind two mountains", "a river port",
    "a desert station", "an old university", "a train that crosses the continent", "a quiet suburb",
    "a castle turned into a school", "a market street", "a frozen lake", "a city built on bridges",
]  # fmt: skip
_THINGS = [
    "brass compass", "unfinished letter", "red umbrella", "broken violin", "jar of honey", "silver key",
    "torn photograph", "wooden boat", "library card", "green lantern", "pocket watch", "basket of apples",
    "heavy door", "blue notebook", "copper kettle", "pair of boots", "paper map", "stone staircase",
    "white horse", "garden gate", "rusty anchor", "winter coat", "music box", "empty chair",
]  # fmt: skip
_ACTIONS = [
    "was carried across the bridge", "lay forgotten under the window", "was sold for a small sum",
    "had belonged to a teacher", "was repaired before the summer", "disappeared during the storm",
    "was found again in the cellar", "stood beside the kitchen table", "was described in the newspaper",
    "reminded everyone of an earlier year", "was painted by the neighbour's daughter",
    "passed from one traveller to the next",
]  # fmt: skip


_CHANGES = ["other", "older", "small", "quiet", "broken", "yellow", "second", "distant"]

# A reading sentence has about 14 tokens.
PREFILL_SENTENCES = 106  # about 1,500 tokens
LONG_SENTENCES = 213  # about 3,000
SYSTEM_SENTENCES = 70  # about 1,000

# No sentence is like another, so that what was said before is no guess at what comes.
_LETTER = (
    "Dear Ms Rivers, thank you for your visit in March, and for the {things[0]} that you left with our {person}. "
    "We have read your proposal with care and talked about it on two evenings, the second of them rather long. "
    "Most of us like the idea of moving the museum to {place}, although nobody could say who will pay for the new "
    "roof. Peter has measured the rooms: the larger hall would hold forty visitors, the smaller one perhaps a "
    "dozen, and the cellar is too damp for paper. He suggests that we keep the {things[1]} upstairs, close to the "
    "south window, where the light is best before noon. Anna disagrees, as she often does, because colours fade "
    "there within a few years; she would rather build a case with grey glass beside the entrance. Both of them "
    "asked me to send you their drawings, which you will find in the second envelope. As for the opening, we "
    "thought of the last Saturday in September, when the harvest is over and the ferry still runs twice a day. "
    "Could your brother bring the {things[2]} before that date? It weighs little, but it should not travel by "
    "post again after what happened in spring. If it rains we shall meet in the school, whose headmaster kindly "
    "offered chairs, tea and a piano that is almost in tune. There is one thing more. The children of the lower "
    "class wrote a short play about the {things[3]}, with eleven roles and a dog, and hope to perform it for you. "
    "I promised nothing, yet I believe an hour would be enough, songs included. Please tell us by the tenth "
    "whether these plans suit you, and whether you need a bed for the night. With kind regards from all of us, "
    "Tom Baker, secretary."
)


def story_prompt(seed: int, number: int) -> str:
    """Ask for a long text in about 110 tokens: far longer than any `max_tokens`."""
    pick = random.Random(f"story {seed} {number}")
    things = ", a ".join(pick.sample(_THINGS, 9))
    return (
        f"Story {number}: write a very long and detailed story, at least two thousand words, about a "
        f"{pick.choice(_PEOPLE)} in {pick.choice(_PLACES)}. Begin with the weather, describe every person "
        f"who appears, and let these things play a part, in this order: a {things}. Do not stop early, do "
        "not summarise, and do not comment on the task."
    )


def reading_prompt(seed: int, number: int, num_sentences: int) -> str:
    """Give a text to read."""
    sentences = _sentences(random.Random(f"reading {seed} {number}"), num_sentences)
    return f"Text {number}: {sentences} Who owned the last thing in this text?"


def system_prompt(seed: int, number: int) -> str:
    """Give what many chats begin with: a text, and how to speak of it."""
    sentences = _sentences(random.Random(f"system {seed} {number}"), SYSTEM_SENTENCES)
    return f"Collection {number}. You tell stories from this inventory: {sentences} Answer at length."


def chat_question(seed: int, number: int, turn: int) -> str:
    """Say what a user says in a turn of a chat; turns count from 0."""
    pick = random.Random(f"chat {seed} {number} {turn}")
    if turn == 0:
        return f"Chat {number}: tell me a long story about the {pick.choice(_THINGS)}. Do not stop early."
    return f"Go on, and bring in the {pick.choice(_THINGS)} of the {pick.choice(_PEOPLE)}. Do not stop early."


def copy_prompt(seed: int, number: int) -> str:
    """Ask for a letter of about 370 tokens once more, word by word."""
    pick = random.Random(f"copy {seed} {number}")
    letter = _LETTER.format(
        person=pick.choice(_PEOPLE), place=pick.choice(_PLACES), things=pick.sample(_THINGS, 4)
    )
    return f"Letter {number}: {letter}\n\nRepeat the letter above word by word."


def with_changed_words(text: str, num_changes: int, seed: int) -> str:
    """Return the text with so many words replaced, in places evenly spread. Raises: ValueError if it has fewer."""
    words = text.split(" ")
    if len(words) < num_changes:
        raise ValueError(f"a text of {len(words)} words has no {num_changes} to change")
    pick = random.Random(f"change {seed}")
    for change in range(num_changes):
        # In the middle of each of as many equal parts; with a mark that no text of ours has, so that it is a change.
        place = (2 * change + 1) * len(words) // (2 * num_changes)
        words[place] = f"{pick.choice(_CHANGES)}*"
    return " ".join(words)


def _sentences(pick: random.Random, num_sentences: int) -> str:
    return " ".join(
        f"The {pick.choice(_THINGS)} of the {pick.choice(_PEOPLE)} {pick.choice(_ACTIONS)}."
        for _ in range(num_sentences)
    )
