"""Write docs/settings.md from the settings class: python scripts/settings_doc.py

tests/test_settings.py fails when the page is not what this script writes.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from mezzo.settings import CONFIG_FILE, CONFIG_VARIABLE, Settings, env_name

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_INTRODUCTION = f"""\
# Settings

Generated from `src/mezzo/settings.py` by `scripts/settings_doc.py`; edit the descriptions there.

Every setting has one name. It stands in `{CONFIG_FILE}` (in the working directory, or the file that
`{CONFIG_VARIABLE}` or `--config` names), in the environment in capitals behind `MEZZO_`, and, for the common
ones, on the command line of `mezzo serve`. The command line wins over the environment, the environment over
the file, the file over the defaults below. A name that is not a setting and a value that does not fit are
errors that say where they stand.

```toml
# {CONFIG_FILE}
port = 9000
device = "cpu"
api_key = "a-key-of-your-own"
max_num_seqs = 16

[models]  # in place of `weights`
"mistral-medium-2505" = "hf:mistralai/Ministral-3-3B-Instruct-2512"
```

In the environment a list is written with commas (`MEZZO_CORS_ORIGINS=https://a.example,https://b.example`)
and a table as JSON (`MEZZO_MODELS='{{"mistral-medium-2505": "nano"}}'`).

The server refuses requests without its API key, whatever address it listens on. It speaks plain HTTP: beyond
this machine, put a TLS proxy before it.

| setting | type | default | meaning |
| --- | --- | --- | --- |
"""


def render() -> str:
    """Return the page."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return _INTRODUCTION + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name}`<br>`{env_name(name)}`", _type(field.annotation), _default(field), field.description)
    return "| " + " | ".join(map(str, cells)) + " |"


def _type(annotation: typing.Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(arg) for arg in typing.get_args(annotation) if arg is not types.NoneType)
    names = {
        str: "text",
        SecretStr: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        Path: "path",
    }
    return {dict: "table", tuple: "list"}.get(origin) or names[annotation]


def _default(field: FieldInfo) -> str:
    if field.default_factory is Settings.model_fields["home"].default_factory:
        return "platform"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ({}, ()):
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
