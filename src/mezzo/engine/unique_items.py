"""Arrays whose items must differ (`uniqueItems`), which no grammar can say: watched while they are written.

A grammar forgets what it has read. So the answer's JSON is read along beside it, byte by byte, and a token is taken
back from those that the grammar allows if it would end an item that stands in its array already. Where items are of a
list (`enum`), a token is also taken back if no item is left that begins with it.

Which arrays are watched is found by the way through the schema that leads to them. Where it branches (`anyOf`, ...)
all branches count: an array is watched if one of them says so, which may ask for more than the schema does.

Values are equal as JSON Schema has it (https://json-schema.org/draft/2020-12/json-schema-core#section-4.2.2).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, NamedTuple

from mezzo.kit import json_pointer

_SPACE = b" \t\r\n"
_BRANCHES = ("allOf", "anyOf", "oneOf")
_BRANCH = ("if", "then", "else", "not")


class _At(Enum):
    """What the next byte belongs to."""

    VALUE = auto()
    STRING = auto()
    ESCAPE = auto()
    SCALAR = auto()
    KEY = auto()
    KEY_STRING = auto()
    KEY_ESCAPE = auto()
    COLON = auto()
    AFTER = auto()


class _Frame(NamedTuple):
    """An array or object that is open.

    nodes   schemas that it may be of
    name    of an object: the key whose value is written
    place   of an array: the item that is written
    start   of an array: where in the text that item begins, -1 before it has
    finite  of an array whose items are listed: their texts and values
    seen    of an array: the items until now
    texts   of an array: how they were written
    """

    nodes: tuple[dict[str, Any], ...]
    is_array: bool
    is_watched: bool = False
    name: str = ""
    place: int = 0
    start: int = -1
    finite: tuple[tuple[bytes, Hashable], ...] | None = None
    seen: frozenset[Hashable] = frozenset()
    texts: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class UniqueItems:
    """How far a text has come, and the items of its open arrays. Immutable: a sibling shares it.

    schema       the JSON Schema of the answer
    is_skipping  a reasoning trace, which stands before the answer between two control tokens
    """

    schema: dict[str, Any]
    text: bytes = b""
    at: _At = _At.VALUE
    frames: tuple[_Frame, ...] = ()
    key_start: int = 0
    is_skipping: bool = False

    @property
    def is_watching(self) -> bool:
        """Whether an array is open whose items must differ."""
        return any(frame.is_watched for frame in self.frames)

    @property
    def is_choosing(self) -> bool:
        """Whether the next bytes belong to an item that is one of a list."""
        return bool(self.frames) and self.frames[-1].is_watched and self.frames[-1].finite is not None

    @property
    def traps(self) -> set[bytes]:
        """What may come next, and would leave an item as long as one that is there: it has to go on, if it can."""
        if not self.frames or not self.frames[-1].is_watched or self.at is _At.AFTER:
            return set()
        frame = self.frames[-1]
        begun = self.text[frame.start :] if frame.start >= 0 else b""
        rests = {
            text.removesuffix(b'"')[len(begun) :]
            for text in frame.texts
            if text[:1] not in b"[{" and text.startswith(begun)
        }
        return rests if begun else rests | {b" " + rest for rest in rests}

    @property
    def is_trapped(self) -> bool:
        """Whether the item that is written could not end here: it is there already."""
        if not self.frames or not self.frames[-1].is_watched or self.at not in (_At.STRING, _At.SCALAR):
            return False
        begun = self.text[self.frames[-1].start :]
        try:
            item = json.loads(begun + b'"' if self.at is _At.STRING else begun)
        except ValueError:  # no value yet
            return False
        return _canonical(item) in self.frames[-1].seen

    def after_control_token(self) -> UniqueItems:
        """Return the state behind a control token: what stands between the first two is no answer."""
        return self if self.text else replace(self, is_skipping=not self.is_skipping)

    def after(self, data: bytes) -> UniqueItems | None:
        """Return the state after more of a text that the grammar allows; None if an item would be there twice."""
        if self.is_skipping:
            return self
        reader = _Reader(self)
        if not all(reader.take(byte) for byte in data) or not reader.has_choice():
            return None
        return reader.state(self)


class _Reader:
    """A state while it changes."""

    def __init__(self, state: UniqueItems) -> None:
        self._schema = state.schema
        self._text = bytearray(state.text)
        self._at = state.at
        self._frames = list(state.frames)
        self._key_start = state.key_start

    def state(self, before: UniqueItems) -> UniqueItems:
        return replace(
            before,
            text=bytes(self._text),
            at=self._at,
            frames=tuple(self._frames),
            key_start=self._key_start,
        )

    def take(self, byte: int) -> bool:
        """Read a byte; False if it ends an item that its array has already."""
        char = bytes([byte])
        is_fine = True
        if self._at in (_At.STRING, _At.KEY_STRING):
            self._in_string(char)
        elif self._at is _At.ESCAPE:
            self._at = _At.STRING
        elif self._at is _At.KEY_ESCAPE:
            self._at = _At.KEY_STRING
        elif self._at is _At.SCALAR and char in b",]} \t\r\n":
            is_fine = self._end_value()
            return is_fine and self.take(byte)
        elif char not in _SPACE or self._at is _At.SCALAR:
            is_fine = self._between(char)
        self._text += char
        if self._at is _At.AFTER and char == b'"':
            is_fine = self._end_value()
        return is_fine

    def has_choice(self) -> bool:
        """Whether an item that must be one of a list still can be one that is not there yet."""
        if not self._frames or self._at is _At.AFTER:
            return True
        frame = self._frames[-1]
        if not frame.is_watched or frame.finite is None:
            return True
        begun = bytes(self._text[frame.start :]) if frame.start >= 0 else b""
        return any(text.startswith(begun) and item not in frame.seen for text, item in frame.finite)

    def _in_string(self, char: bytes) -> None:
        is_key = self._at is _At.KEY_STRING
        if char == b"\\":
            self._at = _At.KEY_ESCAPE if is_key else _At.ESCAPE
        elif char == b'"' and is_key:
            name = json.loads(bytes(self._text[self._key_start :]) + b'"')
            self._frames[-1] = self._frames[-1]._replace(name=name)
            self._at = _At.COLON
        elif char == b'"':
            self._at = _At.AFTER

    def _between(self, char: bytes) -> bool:
        """Read a byte outside of strings that is no space; False as `take`."""
        if self._at is _At.COLON:
            self._at = _At.VALUE
        elif self._at is _At.KEY and char == b'"':
            self._at, self._key_start = _At.KEY_STRING, len(self._text)
        elif self._at in (_At.VALUE, _At.KEY) and char in b"]}":
            return self._close(char)  # an empty one
        elif self._at is _At.VALUE:
            self._begin_value(char)
        elif self._at is _At.AFTER and char in b"]}":
            return self._close(char)
        elif self._at is _At.AFTER and char == b",":
            frame = self._frames[-1]
            self._frames[-1] = frame._replace(place=frame.place + 1, start=-1)
            self._at = _At.VALUE if frame.is_array else _At.KEY
        return True

    def _begin_value(self, char: bytes) -> None:
        nodes = self._nodes_here()
        if self._frames and self._frames[-1].is_array:
            self._frames[-1] = self._frames[-1]._replace(start=len(self._text))
        if char == b"[":
            is_watched = any(node.get("uniqueItems") is True for node in nodes)
            finite = _finite(self._schema, nodes) if is_watched else None
            self._frames.append(_Frame(nodes, is_array=True, is_watched=is_watched, finite=finite))
        elif char == b"{":
            self._frames.append(_Frame(nodes, is_array=False))
            self._at = _At.KEY
        else:
            self._at = _At.STRING if char == b'"' else _At.SCALAR

    def _close(self, char: bytes) -> bool:
        self._frames.pop()
        self._text += char
        is_fine = self._end_value()
        self._text.pop()  # `take` writes it
        return is_fine

    def _end_value(self) -> bool:
        """End a value whose text is written; False if its array has it already."""
        self._at = _At.AFTER
        if not self._frames or not self._frames[-1].is_watched:
            return True
        frame = self._frames[-1]
        text = bytes(self._text[frame.start :])
        item = _canonical(json.loads(text))
        if item in frame.seen:
            return False
        self._frames[-1] = frame._replace(seen=frame.seen | {item}, texts=frame.texts | {text})
        return True

    def _nodes_here(self) -> tuple[dict[str, Any], ...]:
        """Return the schemas that the value which begins may be of."""
        if not self._frames:
            return _expanded(self._schema, [self._schema])
        frame = self._frames[-1]
        if frame.is_array:
            inner = [schema for node in frame.nodes for schema in _items(node, frame.place)]
        else:
            inner = [schema for node in frame.nodes for schema in _properties(node, frame.name)]
        return _expanded(self._schema, inner)


def _items(node: dict[str, Any], index: int) -> Iterable[Any]:
    first = node.get("prefixItems", node.get("items"))
    if isinstance(first, list) and index < len(first):
        yield first[index]
    rest = node.get("additionalItems") if isinstance(node.get("items"), list) else node.get("items")
    yield rest


def _properties(node: dict[str, Any], name: str) -> Iterable[Any]:
    named = node.get("properties", {})
    yield named[name] if name in named else node.get("additionalProperties")
    yield from node.get("patternProperties", {}).values()


def _expanded(root: dict[str, Any], schemas: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """Return schemas with all that they refer to and branch into."""
    found: dict[int, dict[str, Any]] = {}
    pending = list(schemas)
    while pending:
        schema = pending.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue
        found[id(schema)] = schema
        if isinstance(ref := schema.get("$ref"), str):
            pending.append(json_pointer.resolve(root, ref))
        pending += [branch for key in _BRANCHES for branch in schema.get(key, ())]
        pending += [schema[key] for key in _BRANCH if key in schema]
        pending += schema.get("dependentSchemas", {}).values()
    return tuple(found.values())


def _finite(
    root: dict[str, Any], nodes: tuple[dict[str, Any], ...]
) -> tuple[tuple[bytes, Hashable], ...] | None:
    """Return all items that an array can have, None where they are not listed, or may be written in several ways."""
    for node in nodes:
        schemas = _expanded(root, [node.get("items")])
        if "prefixItems" in node or any(key in schema for schema in schemas for key in ("anyOf", "oneOf")):
            continue
        for schema in schemas:
            values = schema.get("enum", [schema["const"]] if "const" in schema else None)
            if schema.get("type") in ("boolean", "null"):
                values = [False, True] if schema["type"] == "boolean" else [None]
            if values is not None and all(isinstance(value, str | int | None) for value in values):
                return tuple(
                    (json.dumps(value, ensure_ascii=False).encode(), _canonical(value)) for value in values
                )
    return None


def _canonical(value: Any) -> Hashable:
    """Return what is equal for equal values of JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(map(_canonical, value)))
    if isinstance(value, dict):
        return ("object", frozenset((name, _canonical(part)) for name, part in value.items()))
    hashable: Hashable = value
    return hashable
