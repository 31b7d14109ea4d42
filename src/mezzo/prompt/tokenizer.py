"""A checkpoint's `tokenizer.json`: text to token ids, and what each id stands for.

Control tokens are kept apart from text. `encode` never produces one, whatever the text holds; they enter a prompt
by their id only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer


class UnsupportedTokenizer(Exception):
    """The tokenizer is missing, damaged, or of a kind that is not supported; the message says which."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a checkpoint. Raises: UnsupportedTokenizer if it holds no JSON object."""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedTokenizer(f"{path} is damaged: {error}") from error
    if not isinstance(raw, dict):
        raise UnsupportedTokenizer(f"{path} is damaged: it holds no JSON object")
    return raw


class TextTokenizer:
    """A `tokenizers` tokenizer without any way to a control token.

    control_tokens   text of every control token -> its id
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        added = raw.get("added_tokens") or []
        self.control_tokens: dict[str, int] = {token["content"]: token["id"] for token in added}
        self._decoder = raw.get("decoder") or {}
        # Tokens that are added but not special are text when the model says them: `<think>` for instance.
        self._plain_ids = {token["id"] for token in added if not token.get("special")}
        # Marked special, every added token is left alone in text once `encode_special_tokens` is on. A truncation that
        # was saved with a tokenizer would cut prompts without a word.
        raw = {
            **raw,
            "added_tokens": [{**token, "special": True} for token in added],
            "truncation": None,
            "padding": None,
        }
        self._tokenizer = _make_tokenizer(raw)
        inner = _without_first_prefix(raw)
        self._inner_tokenizer = self._tokenizer if inner == raw else _make_tokenizer(inner)

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read `folder/tokenizer.json`. Raises: UnsupportedTokenizer."""
        if not (path := folder / "tokenizer.json").is_file():
            raise UnsupportedTokenizer(f"{folder} has no tokenizer.json")
        return cls(read_json(path))

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, is_beginning: bool = True) -> list[int]:
        """Return the ids of `text`, none of them a control token.

        `is_beginning`: the text stands at the beginning of its prompt, where some tokenizers put a space before it.
        """
        tokenizer = self._tokenizer if is_beginning else self._inner_tokenizer
        return tokenizer.encode(text, add_special_tokens=False).ids

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of every id, empty for special tokens.

        Raises: UnsupportedTokenizer if a token's bytes cannot be told without its neighbours.
        """
        to_bytes = self._piece_decoder()
        control_ids = set(self.control_tokens.values())
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values()) + 1)
        for piece, token_id in vocabulary.items():
            if token_id in self._plain_ids:
                table[token_id] = piece.encode()
            elif token_id not in control_ids:
                table[token_id] = to_bytes(piece)
        return tuple(table)

    def _piece_decoder(self) -> Any:
        kinds = {d.get("type") for d in self._decoder.get("decoders", [self._decoder])}
        if "ByteLevel" in kinds:
            return _byte_level_piece
        if "ByteFallback" in kinds:
            return _byte_fallback_piece
        raise UnsupportedTokenizer(
            f"decoder {sorted(map(str, kinds))} is not supported; supported: ByteLevel, ByteFallback"
        )


def _make_tokenizer(raw: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(msgspec.json.encode(raw))
    except Exception as error:  # the library raises bare exceptions
        raise UnsupportedTokenizer(f"tokenizer.json is not usable: {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_first_prefix(raw: dict[str, Any]) -> dict[str, Any]:
    """Return `raw` for text that follows a control token: what only the beginning of a prompt gets is not added."""
    pre_tokenizer = raw.get("pre_tokenizer") or {}
    steps = [
        {**step, "prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step
        for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    ]
    if "pretokenizers" in pre_tokenizer:
        return {**raw, "pre_tokenizer": {**pre_tokenizer, "pretokenizers": steps}}
    return {**raw, "pre_tokenizer": steps[0] or None}


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte behind each character of byte-level BPE.

    Printable bytes stand for themselves; the others, in order, for the characters from U+0100 on.
    Source: the GPT-2 tokenizer, whose alphabet all byte-level tokenizers share.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _to_latin_1() -> dict[int, int]:
    """Return a table for `str.translate`: to characters of Latin-1 from the alphabet's, to none from all others."""
    alphabet = _byte_level_alphabet()
    foreign = dict.fromkeys(range(256), 256)  # of those beyond, none is in Latin-1 anyway
    return foreign | {ord(char): byte for char, byte in alphabet.items()}


_TO_LATIN_1 = _to_latin_1()
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_level_piece(piece: str) -> bytes:
    try:
        return piece.translate(_TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode()  # a token added as plain text


def _byte_fallback_piece(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode()
