"""How many JSON Schemas can be followed, and what it costs: llguidance as mezzo uses it, and xgrammar.

    python -m benchmarks.grammars CHECKPOINT SCHEMAS [--count 500] [--seed 1] [--library both] [--unique-items]

CHECKPOINT is a converted checkpoint, for its vocabulary. SCHEMAS is a folder of files, each a JSON object of `schema`
and `tests`, a list of `{"valid": ..., "data": ...}`: the form of MaskBench, whose schemas come from public collections
(https://github.com/guidance-ai/jsonschemabench). xgrammar is not needed by mezzo: install it to compare.

For each schema: does it compile; are valid instances taken, and invalid ones not; the time to compile, and for each
token of a valid instance the time to say which tokens may come next. Instances are written as `json.dumps` writes them;
one is taken if it is as it stands, or with the properties of its objects in the order in which the schema names them,
which is the only one that a grammar allows. All on one thread.

MaskBench has put `uniqueItems` aside, as `_uniqueItems`; --unique-items puts it back, and asks jsonschema anew which
instances are valid.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import msgspec
from rich.progress import track

from benchmarks.machine import this_machine
from mezzo.engine.config import Vocabulary
from mezzo.engine.grammar import Grammars
from mezzo.engine.grammar_errors import GrammarError
from mezzo.prompt.json_schema import checked_schema, has_unique_items, json_rule
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.protocol.errors import InvalidArguments


class Refused(Exception):
    """The library does not take the schema."""


class Matcher(Protocol):
    """One text on its way through a schema."""

    def mask(self) -> None:
        """Compute which tokens may come next."""

    def take(self, token_id: int) -> bool:
        """Go on by a token; False where it may not come next."""


class Library(Protocol):
    def compile(self, schema: dict[str, Any]) -> Callable[[], Matcher]:
        """Return what begins a text. Raises: Refused."""


class Llguidance:
    """The grammars of the engine."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._grammars = Grammars(vocabulary, len(vocabulary.token_bytes))
        self._grammars.begin('start: "a"').result()

    def compile(self, schema: dict[str, Any]) -> Callable[[], Matcher]:
        try:
            rule = json_rule(checked_schema(schema, "response_format"), unique_items=True)
            watched = json.dumps(schema) if has_unique_items(schema) else None
            state = self._grammars.begin(f"start: {rule}", unique_items=watched).result()
        except (InvalidArguments, GrammarError) as error:
            raise Refused(str(error)) from error
        vocab_size = len(self._vocabulary.token_bytes)

        class Begun:
            def __init__(self) -> None:
                self._state = state.copy()

            def mask(self) -> None:
                self._allowed = self._state.mask(vocab_size)

            def take(self, token_id: int) -> bool:
                self._state.take([token_id])
                return bool(self._allowed[token_id])

        return Begun


class Xgrammar:
    """xgrammar with the same spaces around values, and the same freedom of properties."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import xgrammar  # noqa: PLC0415 - only where it is to be compared

        self._library = xgrammar
        info = xgrammar.TokenizerInfo(
            list(vocabulary.token_bytes), stop_token_ids=sorted(vocabulary.eos_token_ids)
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._bitmask = xgrammar.allocate_token_bitmask(1, len(vocabulary.token_bytes))

    def compile(self, schema: dict[str, Any]) -> Callable[[], Matcher]:
        try:
            compiled = self._compiler.compile_json_schema(
                json.dumps(schema), any_whitespace=False, separators=(", ", ": "), strict_mode=False
            )
        except Exception as error:  # its errors have no type of their own
            raise Refused(str(error)) from error
        library, bitmask = self._library, self._bitmask

        class Begun:
            def __init__(self) -> None:
                self._matcher = library.GrammarMatcher(compiled)

            def mask(self) -> None:
                self._matcher.fill_next_token_bitmask(bitmask)

            def take(self, token_id: int) -> bool:
                return bool(self._matcher.accept_token(token_id))

        return Begun


class Figures(msgspec.Struct):
    """Of one library. Times in milliseconds: median, 99th percentile, longest."""

    name: str
    schemas: int
    compiled: int = 0
    valid: int = 0
    valid_taken: int = 0
    invalid: int = 0
    invalid_taken: int = 0
    compile_ms: tuple[float, float, float] = (0, 0, 0)
    mask_ms: tuple[float, float, float] = (0, 0, 0)


class Record(msgspec.Struct):
    machine: Any
    seed: int
    libraries: list[Figures]


def measure(
    name: str,
    library: Library,
    files: list[Path],
    encode: Callable[[str], list[int]],
    eos: int,
    *,
    unique_items: bool,
) -> Figures:
    """Try all schemas."""
    figures = Figures(name, len(files))
    compile_s: list[float] = []
    mask_s: list[float] = []
    for file in track(files, name):
        content = json.loads(file.read_text())
        if unique_items:
            content = with_unique_items(content)
        start = time.perf_counter()
        try:
            begin = library.compile(content["schema"])
        except Refused:
            continue
        finally:
            compile_s.append(time.perf_counter() - start)
        figures.compiled += 1
        names = list(dict.fromkeys(named_properties(content["schema"])))
        for test in content["tests"]:
            orders = (test["data"], ordered(test["data"], names))
            taken = any(
                _is_taken(
                    begin(),
                    [*encode(json.dumps(data, ensure_ascii=False)), eos],
                    mask_s if test["valid"] else [],
                )
                for data in orders
            )
            if test["valid"]:
                figures.valid += 1
                figures.valid_taken += taken
            else:
                figures.invalid += 1
                figures.invalid_taken += taken
    figures.compile_ms, figures.mask_ms = _summary(compile_s), _summary(mask_s)
    return figures


def with_unique_items(content: dict[str, Any]) -> dict[str, Any]:
    """Return a file's content with `uniqueItems` in its place, and its instances judged anew."""
    if "_uniqueItems" not in json.dumps(content["schema"]):
        return content
    schema = json.loads(json.dumps(content["schema"]).replace('"_uniqueItems"', '"uniqueItems"'))
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)(schema)
    return {
        "schema": schema,
        "tests": [{**test, "valid": validator.is_valid(test["data"])} for test in content["tests"]],
    }


def named_properties(schema: Any) -> Iterator[str]:
    """Yield the names of all properties, from the outermost in."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for part in schema.values():
            yield from named_properties(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from named_properties(part)


def ordered(data: Any, names: list[str]) -> Any:
    """Sort the properties of all objects; those without a name in the schema come last."""
    if isinstance(data, list):
        return [ordered(part, names) for part in data]
    if not isinstance(data, dict):
        return data
    place = {name: number for number, name in enumerate(names)}
    keys = sorted(data, key=lambda key: place.get(key, len(names)))
    return {key: ordered(data[key], names) for key in keys}


def _is_taken(matcher: Matcher, token_ids: list[int], mask_s: list[float]) -> bool:
    for token_id in token_ids:
        start = time.perf_counter()
        matcher.mask()
        mask_s.append(time.perf_counter() - start)
        if not matcher.take(token_id):
            return False
    return True


def _summary(seconds: list[float]) -> tuple[float, float, float]:
    ordered = sorted(seconds)
    chosen = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]
    return tuple(round(1e3 * each, 3) for each in chosen)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("schemas", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", choices=["both", "llguidance"], default="both")
    parser.add_argument("--unique-items", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the record")
    arguments = parser.parse_args()

    encoder = TemplateEncoder.from_folder(arguments.checkpoint)
    vocabulary = Vocabulary(token_bytes=encoder.token_bytes(), eos_token_ids=encoder.eos_token_ids)
    files = sorted(arguments.schemas.glob("*.json"))
    random.Random(arguments.seed).shuffle(files)
    libraries: dict[str, Callable[[Vocabulary], Library]] = {"llguidance": Llguidance}
    if arguments.library == "both":
        libraries["xgrammar"] = Xgrammar
    record = Record(
        msgspec.to_builtins(this_machine()),
        arguments.seed,
        [
            measure(
                name, make(vocabulary), files[: arguments.count], encoder.tokenizer.encode,
                min(vocabulary.eos_token_ids), unique_items=arguments.unique_items,
            )
            for name, make in libraries.items()
        ],
    )  # fmt: skip
    print(msgspec.json.format(msgspec.json.encode(record)).decode())
    if arguments.out is not None:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")


if __name__ == "__main__":
    main()
