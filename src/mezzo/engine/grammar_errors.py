"""What is wrong with a grammar, said without the library that compiles them: the server need not import it."""

from __future__ import annotations

import json

from mezzo.engine.unique_items import UniqueItems

DOES_NOT_FIT = "what the answer begins with does not fit"


class GrammarError(ValueError):
    """A grammar that cannot be compiled, or is too complex. The message is for whoever wrote the schema."""


def check_beginning(begun_with: bytes, unique_items: str | None) -> None:
    """See whether an answer may begin with a text as far as `uniqueItems` of its schema go. Raises: GrammarError."""
    if unique_items is not None and UniqueItems(json.loads(unique_items)).after(begun_with) is None:
        raise GrammarError(DOES_NOT_FIT)
