"""Small tokenizers of the two kinds that are supported, made by hand: every piece is one byte or one merge."""

from __future__ import annotations

from typing import Any

CONTROL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]
PLAIN = ["<think>"]


def _alphabet() -> list[str]:
    """The characters of byte-level BPE, byte by byte, as the tokenizers library lists them."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def make_raw(*, byte_fallback: bool, prepend_scheme: str = "first") -> dict[str, Any]:
    """Return a `tokenizer.json`: SentencePiece-like with byte fallback, else byte-level, as GPT-2's."""
    if byte_fallback:
        pieces = [f"<0x{i:02X}>" for i in range(256)] + ["▁", "a", "b", "c", "▁a", "ab", "é"]
        merges = [["▁", "a"], ["a", "b"]]
    else:
        pieces = [*_alphabet(), "ab", "Ġa"]
        merges = [["a", "b"], ["Ġ", "a"]]
    offset = len(CONTROL) + len(PLAIN)
    added = [
        {
            "id": i, "content": content, "special": content in CONTROL, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False,
        }
        for i, content in enumerate(CONTROL + PLAIN)
    ]  # fmt: skip
    vocab = {content: i for i, content in enumerate(CONTROL + PLAIN)}
    vocab |= {piece: offset + i for i, piece in enumerate(pieces)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": False,
        }
        if byte_fallback
        else {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        }
        if byte_fallback
        else {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": byte_fallback,
            "ignore_merges": False, "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


BYTE_LEVEL = make_raw(byte_fallback=False)
BYTE_FALLBACK = make_raw(byte_fallback=True)
