"""Write docs/request-fields.md from the request schema and the table of `mezzo.prompt.features`.

Run `python scripts/request_fields.py` after changing either; `--check` only says whether the page is current.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mezzo.prompt.features import FIELDS
from mezzo.protocol.base import INT64_MAX
from mezzo.protocol.chat import ChatCompletionRequest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "request-fields.md"

HEAD = """\
# Request fields of POST /v1/chat/completions

<!-- Written by scripts/request_fields.py; edit src/mezzo/prompt/features.py instead. -->

What becomes of each field in this release. Nothing is ignored in silence: a field that is not in this table
is refused with 422, and so is a value outside the second column; a value that fits but cannot be honoured
is refused with 400 and an error that names the field.

| support | meaning |
| --- | --- |
| honoured | does what the reference API documents |
| in part | some values are honoured, the others refused |
| refused | only the value that means "off" is accepted |
| no effect | accepted, and never changes the answer |

| field | values | support | notes |
| --- | --- | --- | --- |
"""


def render() -> str:
    """Return the page."""
    properties = ChatCompletionRequest.model_json_schema()["properties"]
    rows = (
        f"| `{field.name}` | {_values(properties[field.name])} | {field.support} | {field.note} |\n"
        for field in FIELDS
    )
    return HEAD + "".join(rows)


def _values(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return ", ".join(_values(member) for member in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind: str = schema.get("type", "object")
    return kind + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    words = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
    bounds = [
        f"{sign} {schema[key]:g}" for key, sign in words if abs(schema.get(key, INT64_MAX)) != INT64_MAX
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` return 1 if it is not what would be written."""
    page = render()
    if "--check" in arguments:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        sys.stderr.write("docs/request-fields.md is out of date: run scripts/request_fields.py\n")
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
