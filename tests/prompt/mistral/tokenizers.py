"""Tokenizers of every version of Mistral's prompt format: those mistral_common ships, and newer ones made of them.

The package has the bytes of one vocabulary; what sets v11, v13 and v15 apart are control tokens and settings, which
are written here as the loader wants them. The vocabulary is cut to its first tokens, so that files load in no time.
"""

from __future__ import annotations

import atexit
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mezzo.prompt.mistral.encoder import MistralEncoder

SHIPPED = Path(MistralTokenizer._data_path())
SENTENCEPIECE = {
    "v1": SHIPPED / "tokenizer.model.v1",
    "v2": SHIPPED / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": SHIPPED / "mistral_instruct_tokenizer_240323.model.v3",
    "v7": SHIPPED / "mistral_instruct_tokenizer_241114.model.v7",
    "v7m1": SHIPPED / "mistral_instruct_tokenizer_241114.model.v7m1",
}
TEKKEN = ["v3", "v7", "v11", "v13", "v15"]
ALL = [
    *(f"sentencepiece-{version}" for version in SENTENCEPIECE),
    *(f"tekken-{version}" for version in TEKKEN),
]
IMAGE_CONFIG = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
EFFORTS = {"type": "enum", "accepts_none": True, "default": "none", "values": ["none", "high"]}

_NUM_TEXT_TOKENS = 8000
_NUM_CONTROL_TOKENS = 100
_SINCE = {
    "v11": {SpecialTokens.args, SpecialTokens.call_id},
    "v13": {SpecialTokens.begin_think, SpecialTokens.end_think},
    "v15": {SpecialTokens.begin_model_settings, SpecialTokens.end_model_settings},
}


@cache
def tokenizer_file(name: str) -> Path:
    """Return the file of one of `ALL`."""
    family, version = name.split("-")
    if family == "sentencepiece":
        return SENTENCEPIECE[version]
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return write_tekken(folder / "tekken.json", version)


def write_tekken(
    file: Path, version: str, *, num_text_tokens: int = _NUM_TEXT_TOKENS, **changes: Any
) -> Path:
    """Write a tekken.json; `changes` are top-level fields, None to leave one out."""
    raw = json.loads((SHIPPED / "tekken_240911.json").read_text())
    raw.pop("multimodal", None)  # the old name of `image`
    raw["config"] |= {
        "version": version,
        "default_vocab_size": num_text_tokens + _NUM_CONTROL_TOKENS,
        "default_num_special_tokens": _NUM_CONTROL_TOKENS,
    }
    raw |= {
        "vocab": raw["vocab"][:num_text_tokens],
        "image": IMAGE_CONFIG,
        "special_tokens": control_tokens(version),
    }
    if version == "v15":
        raw["model_settings_builder"] = {"reasoning_effort": EFFORTS}
    raw = {key: value for key, value in (raw | changes).items() if value is not None}
    file.write_text(json.dumps(raw))
    return file


def control_tokens(version: str) -> list[dict[str, Any]]:
    """Return the control tokens of a version: the first twenty are in every file, at the same ids."""
    number = int(version[1:])
    first = [
        "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]",
        "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
    ]  # fmt: skip
    later = [str(t) for since, tokens in _SINCE.items() if number >= int(since[1:]) for t in sorted(tokens)]
    return [
        {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(first + later)
    ]


@cache
def reference(name: str) -> Any:
    return MistralTokenizer.from_file(str(tokenizer_file(name)))


@cache
def encoder(name: str) -> MistralEncoder:
    return MistralEncoder.from_file(tokenizer_file(name))
