"""What a server does not import before somebody needs it: every start would pay for it, in time and memory."""

from __future__ import annotations

import subprocess
import sys

# With what brings each of them in: an engine, an image, a grammar, an identity provider, PostgreSQL, a new schema, a
# shared limit, a Mistral tokenizer, a schema that is checked, an upstream, an invoice.
LATER = [
    "torch",
    "numpy",
    "PIL",
    "llguidance",
    "authlib",
    "psycopg",
    "sqlalchemy.dialects.postgresql",
    "alembic",
    "redis",
    "mistral_common",
    "jsonschema",
    "aiohttp",
    "fpdf",
]


def test_a_server_imports_only_what_a_first_chat_needs() -> None:
    program = (
        "import sys, mezzo.cli.main, mezzo.server.run, mezzo.backends.embedded, mezzo.server.app, "
        "mezzo.server.services, mezzo.server.uvicorn_server\n"
        f"print([name for name in {LATER} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
