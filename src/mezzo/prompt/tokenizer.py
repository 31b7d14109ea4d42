"""A checkpoint's `tokenizer.json`: text to token ids, and what each id stands for.

Control tokens are kept apart from text. `encode` never produces one, whatever the text holds; they enter a prompt
by their id only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


class UnsupportedTokenizer(Exception):
    """The tokenizer is missing, damaged, or of a kind that is not supported; the message says which."""


class TextTokenizer:
    """A `tokenizers` tokenizer without any way to a control token.

    control_tokens   text of every control token -> its id
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        added = raw.get("added_tokens") or []
        self.control_tokens: dict[str, int] = {token["content"]: token["id"] for token in added}
        self._decoder = raw.get("decoder") or {}
        # Marked special, every added token is left alone in text once `encode_special_tokens` is on.
        raw = {**raw, "added_tokens": [{**token, "special": True} for token in added]}
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(raw))
        except Exception as error:  # the library raises bare exceptions
            raise UnsupportedTokenizer(f"tokenizer.json is not usable: {error}") from error
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read `folder/tokenizer.json`. Raises: UnsupportedTokenizer."""
        try:
            return cls(json.loads((folder / "tokenizer.json").read_text("utf-8")))
        except FileNotFoundError:
            raise UnsupportedTokenizer(f"{folder} has no tokenizer.json") from None
        except ValueError as error:
            raise UnsupportedTokenizer(f"{folder / 'tokenizer.json'} is damaged: {error}") from error

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, none of them a control token."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of every id, empty for control tokens.

        Raises: UnsupportedTokenizer if a token's bytes cannot be told without its neighbours.
        """
        to_bytes = self._piece_decoder()
        control_ids = set(self.control_tokens.values())
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values()) + 1)
        for piece, token_id in vocabulary.items():
            if token_id not in control_ids:
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


_ALPHABET = _byte_level_alphabet()
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_level_piece(piece: str) -> bytes:
    try:
        return bytes(_ALPHABET[char] for char in piece)
    except KeyError:
        return piece.encode()  # a token added as plain text


def _byte_fallback_piece(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode()
