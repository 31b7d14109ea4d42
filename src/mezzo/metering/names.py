"""The names that people gave to organisations, workspaces and keys, for documents and tables that people read.

They are anybody's text. Documents for programs hold ids instead, which never change and cannot be mistaken for a
formula or a command.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mezzo.store.tables import api_keys, organizations, workspaces

# Control characters, what formats text, halves of characters, ends of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Of these, what a reader does need: they join letters and the parts of an emoji.
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Names:
    """The names that an organisation's objects have now, by id; keys with their shortened secret where unnamed."""

    organization: str
    workspaces: Mapping[str, str]
    keys: Mapping[str, str]


def load_names(connection: Connection, organization_id: str) -> Names:
    """Return an organisation's names, those of archived workspaces and revoked keys too."""
    return Names(
        organization=connection.execute(
            sa.select(organizations.c.name).where(organizations.c.id == organization_id)
        ).scalar_one(),
        workspaces={
            row.id: row.name
            for row in connection.execute(
                sa.select(workspaces.c.id, workspaces.c.name).where(
                    workspaces.c.organization_id == organization_id
                )
            )
        },
        keys={
            row.id: row.name or row.hidden
            for row in connection.execute(
                sa.select(api_keys.c.id, api_keys.c.name, api_keys.c.hidden).where(
                    api_keys.c.organization_id == organization_id
                )
            )
        },
    )


def visible(text: str, can_show: Callable[[str], bool] = lambda character: True) -> str:
    """Write characters that cannot be seen, or steer what shows the text, as their number: `[U+202E]`.

    Those are control characters and everything else without a form of its own, such as a change of the direction of
    writing. can_show: whether a font has a character.
    """
    return "".join(
        character if _is_seen(character) and can_show(character) else f"[U+{ord(character):04X}]"
        for character in text
    )


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN or character in _JOINERS
