"""JSON Schemas said again in words that a grammar can follow: without `oneOf`, `not`, `dependencies`, `propertyNames`.

A grammar is made of what may come; these keywords say what may not. Each is replaced by what it leaves: of `oneOf`,
every branch without what the others take; of `not`, the rest. What is left is found keyword by keyword, and never wider
than the truth: whoever follows the new schema follows the old one. It may be narrower where the difference cannot be
said (a string that does not match a pattern); where nothing would be left to say, the keyword stays, for the compiler
of the grammar to refuse by its name.

Keywords: JSON Schema 2020-12, and `dependencies` of draft 7 (https://json-schema.org/specification).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from mezzo.kit import json_pointer
from mezzo.prompt.json_schema import NO_SCHEMAS, SCHEMAS_BY_NAME

Schema = dict[str, Any] | bool

_TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})  # an integer is a number
_MAX_WORK = 20_000  # schemas looked at; a hostile one has branches that all have branches
_MAX_REFS = 8  # followed one from another: a schema may go round in circles
_DEPENDENCIES = ("dependencies", "dependentRequired", "dependentSchemas")
# Whose schemas stay as they are: a narrower one there may allow more here.
_NOT_NARROWED = (
    "oneOf",
    "not",
    "if",
    "contains",
    "unevaluatedProperties",
    "unevaluatedItems",
    *_DEPENDENCIES,
)
_REWRITTEN = ("oneOf", "not", "propertyNames", *_DEPENDENCIES)
# What breaks a bound: the type it is about, the keyword that says so, and the bound moved by so much.
_BREAKING = {
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
}


def without_exclusions(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that allows nothing that `schema` forbids, and says it by what may come, where that is possible.

    schema   a valid one, of any draft
    """
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    keywords = {*_keywords(schema)}
    if (
        keywords.isdisjoint(_REWRITTEN)
        or _points_into_rewritten(schema)
        or draft is jsonschema.Draft3Validator  # its types and its `required` are others
        or (draft is jsonschema.Draft4Validator and "const" in keywords)  # which says nothing there
    ):
        return schema
    try:
        rewritten = _Rewriter(schema, draft, keywords).rewrite(schema)
    except (_TooMuchWork, RecursionError):
        return schema
    assert isinstance(rewritten, dict)
    return rewritten


class _TooMuchWork(Exception):
    pass


@dataclass
class _View:
    """What values of a schema have in common, as far as it is said outside of alternatives.

    is_closed   no other properties than those named may be there
    values      all that there are, None where they are not listed
    """

    types: frozenset[str] = _TYPES
    required: set[str] = field(default_factory=set)
    properties: dict[str, list[Schema]] = field(default_factory=dict)
    is_closed: bool = False
    values: list[Any] | None = None

    def may_have(self, name: str) -> bool:
        parts = self.properties.get(name)
        return not self.is_closed if parts is None else False not in parts


class _Rewriter:
    def __init__(self, root: dict[str, Any], draft: Any, keywords: set[str]) -> None:
        self._root = root
        self._validator = draft(root, registry=EMPTY_REGISTRY)  # its own would fetch what a reference names
        self._keywords = keywords
        self._work = 0

    def rewrite(self, schema: Any) -> Any:
        """Rewrite a schema and all within it."""
        self._count()
        if not isinstance(schema, dict):
            return [self.rewrite(part) for part in schema] if isinstance(schema, list) else schema
        copy: dict[str, Any] = {}
        for key, value in schema.items():
            if key in NO_SCHEMAS or key in _NOT_NARROWED:
                copy[key] = value
            elif key in SCHEMAS_BY_NAME and isinstance(value, dict):
                copy[key] = {name: self.rewrite(part) for name, part in value.items()}
            else:
                copy[key] = self.rewrite(value)
        conditions: list[Schema] = []
        conditions += self._dependencies(copy)
        if "oneOf" in copy and self._one_of(schema, copy):
            del copy["oneOf"]
        if "not" in copy:
            rest = {key: part for key, part in schema.items() if key != "not"}
            left = self._leaving(self._view(rest), copy["not"])
            if left:
                del copy["not"]
                conditions += _any_of(left)
        self._names(copy)
        if conditions:
            copy["allOf"] = [*copy.get("allOf", []), *(self.rewrite(each) for each in conditions)]
        return copy

    def _one_of(self, schema: dict[str, Any], copy: dict[str, Any]) -> bool:
        """Replace `oneOf` by alternatives that do not overlap; False where that cannot be said."""
        branches = schema["oneOf"]
        common = {key: part for key, part in schema.items() if key != "oneOf"}
        alternatives: list[Schema] = []
        for number, branch in enumerate(branches):
            view = self._view({"allOf": [common, branch]})
            conditions: list[Schema] = []
            for other_number, other in enumerate(branches):
                if other_number == number:
                    continue
                left = self._leaving(view, other)
                if not left:
                    break
                conditions += _any_of(left)
            else:
                own = self.rewrite(branch)
                beside = [self.rewrite(condition) for condition in _merged(conditions)]
                alternatives.append({"allOf": [own, *beside]} if beside else own)
        if not alternatives:
            return False
        if "anyOf" in copy:
            copy["allOf"] = [*copy.get("allOf", []), {"anyOf": alternatives}]
        else:
            copy["anyOf"] = alternatives
        return True

    def _dependencies(self, copy: dict[str, Any]) -> Iterator[Schema]:
        for key in _DEPENDENCIES:
            for name, wanted in copy.pop(key, {}).items():
                then = {"required": [name, *wanted]} if isinstance(wanted, list) else wanted
                if then not in (True, {}):
                    yield {"anyOf": [{"properties": {name: False}}, then]}

    def _names(self, copy: dict[str, Any]) -> None:
        """Replace `propertyNames` where no property is named otherwise."""
        names = copy.get("propertyNames")
        if not isinstance(names, dict) or copy.get("properties") or copy.get("patternProperties"):
            return
        others = copy.get("additionalProperties", True)
        if (
            set(names) <= {"pattern", "type"}
            and "pattern" in names
            and names.get("type", "string") == "string"
        ):
            replacement: dict[str, Any] = {"patternProperties": {names["pattern"]: others}}
        elif set(names) == {"enum"}:
            replacement = {"properties": {name: others for name in names["enum"] if isinstance(name, str)}}
        else:
            return
        del copy["propertyNames"]
        copy.update(replacement | {"additionalProperties": False})

    def _leaving(self, view: _View | None, other: Schema, refs: int = 0) -> list[Schema]:
        """Return schemas, each of which leaves of what is viewed only values that `other` does not allow.

        `[{}]` where that is so already, `[]` where no such schema is known.
        """
        self._count()
        if isinstance(other, bool):
            return [] if other else [{}]
        found = [{}] if view is None else self._broken_keywords(view, other, refs)
        return [{}] if {} in found else found

    def _broken_keywords(self, view: _View, other: dict[str, Any], refs: int) -> list[Schema]:
        if view.values is not None:
            left = self._not_allowed(other, view.values)
            return [{}] if len(left) == len(view.values) else [{"enum": left}] if left else []
        if "$ref" in other:  # what stands beside it says less, and in old drafts nothing
            target = self._target(other["$ref"]) if refs < _MAX_REFS else None
            return [] if target is None else self._leaving(view, target, refs + 1)
        found: list[Schema] = []
        found += self._other_types(view, other)
        if "object" in view.types:
            found += self._broken_objects(view, other, refs)
        for key, (kind, breaking, moved) in _BREAKING.items():
            bound = other.get(key)
            if kind not in view.types or isinstance(bound, bool) or not isinstance(bound, int | float):
                continue
            if kind == "number" or bound + moved >= 0:
                found.append({"type": kind, breaking: bound + moved})
        for part in other.get("allOf", ()):
            found += self._leaving(view, part, refs)
        for key in ("anyOf", "oneOf"):
            if key in other:
                left_of_each = [self._leaving(view, part, refs) for part in other[key]]
                if all(left_of_each):
                    conditions = [condition for left in left_of_each for condition in _any_of(left)]
                    found.append({"allOf": conditions} if conditions else {})
        if "not" in other and other["not"] is not False:
            found.append({} if other["not"] is True else other["not"])
        return found

    def _other_types(self, view: _View, other: dict[str, Any]) -> Iterator[Schema]:
        taken = _types(other)
        if "enum" in other or "const" in other:
            taken &= {_type_of(value) for value in _values(other) or ()}
        if not taken & view.types:
            yield {}
        elif view.types - taken:
            yield {"type": sorted(view.types - taken)}

    def _broken_objects(self, view: _View, other: dict[str, Any], refs: int) -> Iterator[Schema]:
        is_object = view.types == {"object"}
        for name in other.get("required", ()):
            if name in view.required:
                continue
            if is_object and not view.may_have(name):
                yield {}
            else:
                yield {"type": "object", "properties": {name: False}}
        named = other.get("properties", {})
        for name, schema in named.items():
            if not view.may_have(name):
                continue
            own: Schema = {"allOf": view.properties[name]} if name in view.properties else {}
            for left in self._leaving(self._view(own), schema, refs):
                if left == {} and is_object and name in view.required:
                    yield {}
                else:
                    yield {"type": "object", "required": [name], "properties": {name: left}}
        if other.get("additionalProperties") is False and not other.get("patternProperties"):
            for name in {**dict.fromkeys(sorted(view.required)), **view.properties}:
                if name in named or not view.may_have(name):
                    continue
                yield {} if is_object and name in view.required else {"type": "object", "required": [name]}

    def _view(self, schema: Schema, refs: int = 0) -> _View | None:
        """Look at a schema and at what it is made of; None where it allows nothing."""
        self._count()
        if isinstance(schema, bool):
            return _View() if schema else None
        if "$ref" in schema:
            target = self._target(schema["$ref"]) if refs < _MAX_REFS else None
            return _View() if target is None else self._view(target, refs + 1)
        view = _View(
            types=_types(schema),
            required=set(schema.get("required", ())),
            properties={name: [part] for name, part in schema.get("properties", {}).items()},
            is_closed=schema.get("additionalProperties") is False and not schema.get("patternProperties"),
            values=_values(schema),
        )
        parts = [self._view(part, refs) for part in schema.get("allOf", ())]
        parts += [self._view_of_any(schema[key], refs) for key in ("anyOf", "oneOf") if key in schema]
        for more in parts:
            if more is None:
                return None
            closed_to = [set(each.properties) for each in (view, more) if each.is_closed]
            view.types &= more.types
            view.required |= more.required
            for name, schemas in more.properties.items():
                view.properties[name] = [*view.properties.get(name, ()), *schemas]
            for names in closed_to:
                for name in view.properties:
                    if name not in names:
                        view.properties[name].append(False)
            view.is_closed |= more.is_closed
            if more.values is not None:
                view.values = [v for v in more.values if view.values is None or v in view.values]
        return view if view.types else None

    def _view_of_any(self, schemas: list[Schema], refs: int) -> _View | None:
        views = [view for schema in schemas if (view := self._view(schema, refs)) is not None]
        if not views:
            return None
        lists = [view.values for view in views if view.values is not None]
        return _View(
            types=frozenset.union(*(view.types for view in views)),
            required=set.intersection(*(view.required for view in views)),
            values=[value for each in lists for value in each] if len(lists) == len(views) else None,
        )

    def _target(self, ref: str) -> Schema | None:
        """Return what a reference within the schema points at."""
        node = json_pointer.resolve(self._root, ref)
        return node if isinstance(node, dict | bool) else None

    def _not_allowed(self, schema: dict[str, Any], values: list[Any]) -> list[Any]:
        """Return the values that do not fit, none where a pattern would have to be tried: that may take for ever."""
        keywords = {*_keywords(schema)}
        if "$ref" in keywords:
            keywords |= self._keywords
        if keywords & {"pattern", "patternProperties"}:
            return []
        self._count(len(values))
        validator = self._validator.evolve(schema=schema)
        try:
            return [value for value in values if not validator.is_valid(value)]
        except Unresolvable:
            return []

    def _count(self, work: int = 1) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise _TooMuchWork


def _any_of(alternatives: list[Schema]) -> list[Schema]:
    """Return conditions, none where the alternatives always hold."""
    if {} in alternatives:
        return []
    return alternatives if len(alternatives) == 1 else [{"anyOf": alternatives}]


def _merged(conditions: list[Schema]) -> list[Schema]:
    """Put all that only forbid properties into one: a grammar is made of each combination."""
    absent: dict[str, Any] = {}
    others: list[Schema] = []
    for condition in conditions:
        properties = condition.get("properties", {}) if isinstance(condition, dict) else {}
        if condition == {"type": "object", "properties": properties} and set(properties.values()) == {False}:
            absent |= properties
        elif condition not in others:
            others.append(condition)
    return [{"type": "object", "properties": absent}, *others] if absent else others


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows: `number` also where it says `integer`."""
    named = schema.get("type", _TYPES)
    names = {named} if isinstance(named, str) else set(named)
    return frozenset("number" if name == "integer" else name for name in names)


def _values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def _keywords(schema: Any) -> Iterator[str]:
    """Yield all keys, of values too."""
    if isinstance(schema, dict):
        yield from schema
        for part in schema.values():
            yield from _keywords(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _keywords(part)


def _points_into_rewritten(schema: Any) -> bool:
    """Whether a reference leads through a keyword that would not be there any more."""
    if isinstance(schema, list):
        return any(map(_points_into_rewritten, schema))
    if not isinstance(schema, dict):
        return False
    ref = schema.get("$ref")
    if isinstance(ref, str) and any(f"/{keyword}/" in f"{ref}/" for keyword in _REWRITTEN):
        return True
    return any(map(_points_into_rewritten, schema.values()))
