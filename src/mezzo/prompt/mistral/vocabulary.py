"""What the ids of mistral_common's tokenizers stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mezzo.prompt.tokenizer import UnsupportedTokenizer

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# Attributes of an instruct tokenizer that no chat needs: filling in the middle, and optional tokens.
_NOT_FOR_CHAT = {"PREFIX", "SUFFIX", "TRANSCRIBE", "BEGIN_THINK", "END_THINK"}


def find_special_token(tokenizer: Tekkenizer | SentencePieceTokenizer, name: str) -> int | None:
    """Return the id of a control token. (`get_special_token` of SentencePiece returns that of `<unk>` for none.)"""
    return tokenizer.get_special_token(name) if tokenizer.is_special(name) else None


def check_special_tokens(tokenizer: MistralTokenizer[Any, Any, Any, Any, Any], path: Path) -> None:
    """Check that every control token of the prompt format exists, and the settings that v15 cannot do without.

    A SentencePiece model under the name of a version that it was not made for would write `<unk>` for them.
    Raises: UnsupportedTokenizer naming what is missing.
    """
    instruct: Any = tokenizer.instruct_tokenizer
    needed = {name: token_id for name, token_id in vars(instruct).items() if name.isupper()}
    if instruct.image_encoder is not None:
        needed |= vars(instruct.image_encoder.special_ids)
    for name, token_id in needed.items():
        if name not in _NOT_FOR_CHAT and not instruct.tokenizer.is_special(token_id):
            raise UnsupportedTokenizer(
                f"{path} has no token {name}, which prompts of {tokenizer.version.value} need"
            )
    if tokenizer.version >= TokenizerVersion.v15 and instruct.tokenizer.model_settings_builder is None:
        raise UnsupportedTokenizer(f"{path} has no model_settings_builder, which prompts of v15 need")


def token_bytes(tokenizer: Tekkenizer | SentencePieceTokenizer) -> tuple[bytes, ...]:
    """Return the bytes of every id, empty for control tokens; ids are those of the model, control tokens included."""
    if isinstance(tokenizer, Tekkenizer):
        return tuple(tokenizer.id_to_byte_piece(token_id) for token_id in range(tokenizer.n_words))
    control = {*tokenizer.special_ids, tokenizer.unk_id}
    pieces = tokenizer.vocab()
    return tuple(b"" if token_id in control else _piece_bytes(piece) for token_id, piece in enumerate(pieces))


def _piece_bytes(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode()
