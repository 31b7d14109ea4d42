"""JSON Schemas of requests: checked, and written as grammars can read them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final, Literal

from mezzo.protocol.errors import InvalidArguments

MAX_SCHEMA_NODES = 10_000
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_MAX_DEPTH = 200  # objects and lists within each other
_MAX_NODES_FOR_WORDS = 500
_MAX_MESSAGE = 200
# One way to write a value, the way of Python's json.dumps: a model that may write spaces for ever does.
# All options are set, since a schema could set them itself.
_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
# `format` asserts nothing in JSON Schema unless both sides agree; of these, grammars know what to do.
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
NO_SCHEMAS = (
    "const",
    "enum",
    "default",
    "examples",
    "example",
)  # hold values, in which nothing is a keyword
SCHEMAS_BY_NAME = (
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependencies",
)


def checked_schema(schema: dict[str, Any], param: Literal["response_format", "tools"]) -> dict[str, Any]:
    """Return `schema` if it is a JSON Schema of the draft that it names. Raises: InvalidArguments naming `param`."""
    import jsonschema  # noqa: PLC0415 - only requests with schemas pay for it

    if num_nodes(schema) > MAX_SCHEMA_NODES:
        raise InvalidArguments(f"The schema has more than {MAX_SCHEMA_NODES} parts", param=param)
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    check_schema(draft, schema, "schema", param=param)
    return schema


def check_schema(draft: Any, schema: dict[str, Any], what: str, *, param: str) -> None:
    """Check that `schema` is one of `draft`, a class of jsonschema's. Raises: InvalidArguments.

    jsonschema takes a second for the largest schemas, and the caller is an event loop: it only has its say, in the
    words that the reference's clients know, about small ones that jsonschema_rs finds wrong.
    """
    import jsonschema  # noqa: PLC0415 - see checked_schema

    if _depth(schema) > _MAX_DEPTH:
        raise InvalidArguments(f"Invalid {what}: it is nested too deeply", param=param)
    quick = _quick_validator(draft)
    if quick is not None and quick.is_valid(schema):
        return
    if quick is not None and num_nodes(schema) > _MAX_NODES_FOR_WORDS:
        error = next(quick.iter_errors(schema))
        raise InvalidArguments(f"Invalid {what}: {error.message[:_MAX_MESSAGE]}", param=param)
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InvalidArguments(f"Invalid {what}: {error.message[:_MAX_MESSAGE]}", param=param) from error


@cache
def _quick_validator(draft: Any) -> Any:
    """Return what checks schemas of a draft in microseconds, None for drafts that it does not know."""
    import jsonschema_rs  # noqa: PLC0415 - see checked_schema

    # The metaschema is given, not found by the schema's own $schema: that would be fetched where it is unknown.
    make = getattr(jsonschema_rs, draft.__name__, None)
    return None if make is None else make(draft.META_SCHEMA, validate_formats=True)


def json_rule(schema: dict[str, Any], *, unique_items: bool = False) -> str:
    """Return what stands for values of `schema` in a rule of a grammar.

    unique_items: whoever follows the grammar sees to `uniqueItems`, which no grammar can.
    """
    from mezzo.prompt.schema_rewrites import without_exclusions  # noqa: PLC0415 - see checked_schema

    schema = _for_grammar(without_exclusions(schema), unique_items=unique_items)
    return f"%json {json.dumps(schema | {'x-guidance': _OPTIONS})}"


def _depth(schema: Any) -> int:
    """Return how deep a schema is nested, at most one more than is allowed."""
    level, depth = [schema], 0
    while level and depth <= _MAX_DEPTH:
        parts = (node.values() if isinstance(node, dict) else node for node in level)
        level = [part for some in parts for part in some if isinstance(part, dict | list)]
        depth += 1
    return depth


def num_nodes(schema: Any) -> int:
    """Count the parts of a schema, up to somewhat more than are allowed."""
    count, pending = 0, [schema]
    while pending and count <= MAX_SCHEMA_NODES:
        node = pending.pop()
        count += 1
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return count


def _is_unknown_format(value: Any) -> bool:
    return isinstance(value, str) and value not in _FORMATS


def has_unique_items(schema: Any) -> bool:
    """Whether arrays of a schema must not repeat themselves."""
    if isinstance(schema, list):
        return any(map(has_unique_items, schema))
    if not isinstance(schema, dict):
        return False
    return schema.get("uniqueItems") is True or any(
        has_unique_items(part) for key, part in schema.items() if key not in NO_SCHEMAS
    )


def _for_grammar(schema: Any, *, unique_items: bool) -> Any:
    """Copy a schema without what no grammar knows and nobody needs, and without its own options for grammars."""
    if isinstance(schema, list):
        return [_for_grammar(part, unique_items=unique_items) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {}
    for key, value in schema.items():
        if key == "x-guidance" or (key == "format" and _is_unknown_format(value)):
            continue
        if key == "uniqueItems" and (value is False or (value is True and unique_items)):
            continue
        if key in NO_SCHEMAS:
            copy[key] = value
        elif key in SCHEMAS_BY_NAME and isinstance(value, dict):
            copy[key] = {name: _for_grammar(part, unique_items=unique_items) for name, part in value.items()}
        else:
            copy[key] = _for_grammar(value, unique_items=unique_items)
    return copy
