"""A results file: what was measured, where and with what, so that it can be measured again."""

from __future__ import annotations

import datetime
import itertools
import sys
from pathlib import Path

import msgspec

from benchmarks import machine

RESULTS = Path(__file__).resolve().parent / "results"


def save(topic: str, **measured: object) -> Path:
    """Write what was measured, with date, commit, command, machine and versions, to results/ and return the file."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name if spec is not None else topic
    here = machine.this_machine()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "topic": topic,
        "date": date,
        "commit": machine.commit(),
        "command": machine.public_command(["python", "-m", module, *sys.argv[1:]]),
        "machine": here,
        "libraries": machine.library_versions(),
    }
    return write(record | measured, date=date, device=here.slug, topic=topic)


def write(record: object, *, date: str, device: str, topic: str) -> Path:
    """Write `results/<date>-<device>-<topic>.json`; a second run of one day gets a number."""
    stem = f"{date}-{device}-{topic}"
    path = RESULTS / f"{stem}.json"
    for count in itertools.count(2):
        if not path.exists():
            break
        path = RESULTS / f"{stem}-{count}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return path
