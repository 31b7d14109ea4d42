"""Prompts for benchmarks: plain English, fixed by a seed, no two alike.

Every prompt starts with its number, so a prefix cache can reuse the chat template's first tokens and
nothing else.
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


def story_prompt(seed: int, number: int) -> str:
    """Ask for a long text in about 100 tokens: far longer than any run's `max_tokens`."""
    pick = random.Random(f"story {seed} {number}")
    things = ", a ".join(pick.sample(_THINGS, 9))
    return (
        f"Story {number}: write a very long and detailed story, at least two thousand words, about a "
        f"{pick.choice(_PEOPLE)} in {pick.choice(_PLACES)}. Begin with the weather, describe every person "
        f"who appears, and let these things play a part, in this order: a {things}. Do not stop early, do "
        "not summarise, and do not comment on the task."
    )


def reading_prompt(seed: int, number: int, num_sentences: int) -> str:
    """Give a text to read: a sentence is about 14 tokens."""
    pick = random.Random(f"reading {seed} {number}")
    sentences = (
        f"The {pick.choice(_THINGS)} of the {pick.choice(_PEOPLE)} {pick.choice(_ACTIONS)}."
        for _ in range(num_sentences)
    )
    return f"Text {number}: {' '.join(sentences)} Who owned the last thing in this text?"
