"""How the tokenizer inside a GGUF becomes tokenizer.json and tokenizer_config.json.

Token types in a GGUF: 1 normal, 3 control (special: never produced from text that is encoded as plain text,
left out of decoded text), 4 defined by the model's makers (matched whole in text), 5 unused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from mezzo.weights.errors import WeightsError
from mezzo.weights.gguf_file import GgufFile

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


# How text is cut before byte pairs are merged: the GGUF has a name for it, not the rule itself.
PRE_TOKENIZERS: MappingProxyType[str, Callable[[], pre_tokenizers.PreTokenizer]] = MappingProxyType(
    {"smollm": _smollm}
)


def build_tokenizer(file: GgufFile, renamed: Mapping[str, str] = MappingProxyType({})) -> Tokenizer:
    """Build the byte-level BPE tokenizer.

    renamed   control tokens that get another name: old -> new, under the same id
    Raises: WeightsError for a kind that is not supported, or a token to rename that is no control token.
    """
    kind = file.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise WeightsError(
            f"{file.path.name} has a tokenizer of kind {kind}; only gpt2 (byte-level BPE) is supported."
        )
    pre = file.get("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise WeightsError(
            f"{file.path.name} has a tokenizer with the pre-tokenizer {pre}; "
            f"supported: {', '.join(PRE_TOKENIZERS)}.",
            hint="Use a checkpoint folder with a tokenizer.json instead of the GGUF file.",
        )
    types = _token_types(file)
    tokens = _tokens(file, types, renamed)
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise WeightsError(f"{file.path.name} has a tokenizer that names a token twice.")
    tokenizer = Tokenizer(_byte_pairs(file, vocabulary))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [_added(token) for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    )
    tokenizer.add_tokens(
        [_added(token) for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    )
    _add_edges(tokenizer, file, tokens)
    return tokenizer


def tokenizer_config(file: GgufFile, renamed: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Build tokenizer_config.json: the chat template and which strings the special tokens are.

    renamed   as for `build_tokenizer`
    """
    types = _token_types(file)
    tokens = _tokens(file, types, renamed)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "model_max_length": file.integer("llama.context_length"),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = _special_token(file, key, tokens)
        if token is not None:
            config[f"{name}_token"] = token
    named = set(config.values())
    config["additional_special_tokens"] = [
        token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL and token not in named
    ]
    template = file.get("tokenizer.chat_template")
    if template is not None:
        config["chat_template"] = template
    return config


def _tokens(file: GgufFile, types: list[int], renamed: Mapping[str, str]) -> list[str]:
    """List the vocabulary by id, under the new names."""
    tokens = file.strings("tokenizer.ggml.tokens")
    control = {token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL}
    if missing := sorted(renamed.keys() - control):
        raise WeightsError(f"{file.path.name} lacks the control tokens {', '.join(missing)}.")
    return [renamed.get(token, token) for token in tokens]


def _token_types(file: GgufFile) -> list[int]:
    num_tokens = len(file.strings("tokenizer.ggml.tokens"))
    types: list[int] = file.get("tokenizer.ggml.token_type", [NORMAL] * num_tokens)
    if len(types) != num_tokens:
        raise WeightsError(f"{file.path.name} has {num_tokens} tokens and {len(types)} token types.")
    if unknown := set(types) - {NORMAL, CONTROL, USER_DEFINED, UNUSED}:
        raise WeightsError(
            f"{file.path.name} has tokens of type {min(unknown)}, which byte-level BPE does not have."
        )
    return types


def _byte_pairs(file: GgufFile, vocabulary: dict[str, int]) -> models.BPE:
    merges = []
    for merge in file.strings("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise WeightsError(
                f"{file.path.name} has a tokenizer that merges unknown tokens: {merge[:80]!r}."
            )
        merges.append((left, right))
    return models.BPE(vocab=vocabulary, merges=merges)


def _added(token: str) -> AddedToken:
    return AddedToken(token, normalized=False)


def _add_edges(tokenizer: Tokenizer, file: GgufFile, tokens: list[str]) -> None:
    """Have the beginning and end tokens added where the file says that its model was trained so."""
    template = ["$A"]
    special: list[tuple[str, int]] = []
    for key, place in (("bos", 0), ("eos", 1)):
        if not file.get(f"tokenizer.ggml.add_{key}_token", False):
            continue
        token = _special_token(file, key, tokens)
        if token is None:
            raise WeightsError(f"{file.path.name} wants a {key} token added but does not name one.")
        template.insert(place * len(template), token)
        special.append((token, tokens.index(token)))
    if special:
        tokenizer.post_processor = processors.Sequence(
            [processors.TemplateProcessing(single=template, special_tokens=special)]
        )


def _special_token(file: GgufFile, key: str, tokens: list[str]) -> str | None:
    token_id = file.get(f"tokenizer.ggml.{key}_token_id")
    if token_id is None:
        return None
    if not 0 <= token_id < len(tokens):
        raise file.invalid(f"tokenizer.ggml.{key}_token_id", token_id)
    token: str = tokens[token_id]
    return token
