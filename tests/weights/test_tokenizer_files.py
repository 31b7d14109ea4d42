"""tokenizer.json: a tiny one token by token, and nano's own over varied text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from mezzo.weights import CheckpointFolder, WeightsError
from mezzo.weights.gguf_file import GgufFile
from mezzo.weights.tokenizer_files import build_tokenizer, tokenizer_config

FIRST_BYTE = 3  # the ids of the tiny vocabulary: three control tokens, 256 bytes, three merges


def tiny(make_gguf: Callable[..., Path], **metadata: Any) -> Tokenizer:
    return build_tokenizer(
        GgufFile(make_gguf(metadata={f"tokenizer.ggml.{k}": v for k, v in metadata.items()}))
    )


def test_merges_digits_and_control_tokens(make_gguf: Callable[..., Path]) -> None:
    tokenizer = tiny(make_gguf)
    ids = tokenizer.encode("a the 12<|im_end|>").ids
    assert ids == [
        FIRST_BYTE + ord("a"),
        261,  # " the", merged from " t" and "he"
        FIRST_BYTE + ord(" "),
        FIRST_BYTE + ord("1"),
        FIRST_BYTE + ord("2"),
        2,  # <|im_end|>
    ]
    assert tokenizer.decode(ids) == "a the 12"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a the 12<|im_end|>"


def test_tokens_defined_by_the_makers_are_matched_whole_and_stay_in_the_text(
    make_gguf: Callable[..., Path],
) -> None:
    types = [3] * 3 + [1] * 258 + [4]
    tokenizer = tiny(make_gguf, token_type=types)
    ids = tokenizer.encode("xĠthex").ids
    assert ids == [FIRST_BYTE + ord("x"), 261, FIRST_BYTE + ord("x")]
    assert 261 in tokenizer.get_added_tokens_decoder()
    assert not tokenizer.get_added_tokens_decoder()[261].special


def test_beginning_and_end_are_added_where_the_file_says_so(make_gguf: Callable[..., Path]) -> None:
    letter = FIRST_BYTE + ord("a")
    assert tiny(make_gguf).encode("a").ids == [letter]
    assert tiny(make_gguf, add_bos_token=True).encode("a").ids == [1, letter]
    assert tiny(make_gguf, add_bos_token=True, add_eos_token=True).encode("a").ids == [1, letter, 2]
    assert tiny(make_gguf, add_eos_token=True).encode("a", add_special_tokens=False).ids == [letter]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model": "llama"}, "tokenizer of kind llama"),
        ({"pre": "llama-bpe"}, "pre-tokenizer llama-bpe; supported: smollm"),
        ({"pre": None}, "pre-tokenizer None"),
        ({"token_type": [1, 1]}, "262 tokens and 2 token types"),
        ({"token_type": [6] * 262}, "tokens of type 6"),
        ({"merges": ["x nothing-like-it"]}, "merges unknown tokens"),
        ({"merges": ["x"]}, "merges unknown tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": [1] * 3}, "names a token twice"),
        ({"add_bos_token": True, "bos_token_id": None}, "wants a bos token added"),
        ({"add_bos_token": True, "bos_token_id": 900}, r"bos_token_id = 900"),
    ],
)
def test_what_is_not_supported_is_refused(
    make_gguf: Callable[..., Path], metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        tiny(make_gguf, **metadata)


def test_tokenizer_config_has_template_and_special_tokens(make_gguf: Callable[..., Path]) -> None:
    config = tokenizer_config(GgufFile(make_gguf()))
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "model_max_length": 128,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "additional_special_tokens": [],
        "chat_template": "{{ messages[0]['content'] }}",
    }


VARIED = [
    "Hello, world!",
    "  two  spaces\tand a tab\r\nand lines\n\n\n",
    "3.14159 and 1,000,000 and 2024-05-07",
    "naïve café, Ärger, ñandú, 東京タワー, Привет, مرحبا, שלום",
    "👩‍👩‍👧‍👦 🤖 🇫🇷 e\u0301 \u200b zero width",
    "def f(x):\n    return x ** 2  # comment\n",
    "don't we'll I'm THEY'RE",
    "\x00\x01\x7f control bytes",
    "",
]


@pytest.fixture(scope="module")
def nano_tokenizer(nano_folder: CheckpointFolder) -> Tokenizer:
    return Tokenizer.from_file(str(nano_folder.path / "tokenizer.json"))


@pytest.mark.slow
@pytest.mark.parametrize("text", VARIED)
def test_nano_round_trip(nano_tokenizer: Tokenizer, text: str) -> None:
    assert nano_tokenizer.decode(nano_tokenizer.encode(text).ids) == text


@pytest.mark.slow
def test_nano_digits_stand_alone(nano_tokenizer: Tokenizer) -> None:
    assert nano_tokenizer.encode("x1234").tokens == ["x", "1", "2", "3", "4"]


@pytest.mark.slow
def test_nano_control_tokens_are_single_and_left_out_of_text(nano_tokenizer: Tokenizer) -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n"
    encoded = nano_tokenizer.encode(text)
    assert encoded.tokens == ["<|im_start|>", "user", "Ċ", "Hi", "<|im_end|>", "Ċ"]
    assert encoded.ids[0] == 1
    assert encoded.ids[4] == 2
    assert nano_tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    assert nano_tokenizer.decode(encoded.ids) == "user\nHi\n"


@pytest.mark.slow
def test_nano_vocabulary_is_the_config_s(nano_tokenizer: Tokenizer, nano_folder: CheckpointFolder) -> None:
    config = json.loads((nano_folder.path / "config.json").read_text())
    assert nano_tokenizer.get_vocab_size() == config["text_config"]["vocab_size"] == 49152
    added = nano_tokenizer.get_added_tokens_decoder()
    assert sorted(added) == list(range(17))
    assert [added[i].content for i in (14, 15, 16)] == ["[IMG_END]", "[IMG_BREAK]", "[IMG]"]
    assert config["image_token_index"] == 16
