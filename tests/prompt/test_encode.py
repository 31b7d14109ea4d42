"""A request to token ids, with the files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.encode import PromptEncoder
from mezzo.prompt.tokenizer import UnsupportedTokenizer
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import InvalidArguments
from tests.prompt.small import BYTE_LEVEL

TEMPLATE = "{% for m in messages %}{{ m.role + ':' + m.content + '</s>' }}{% endfor %}"


def write(folder: Path, *, template: str = TEMPLATE, **files: Any) -> Path:
    contents = {
        "tokenizer": BYTE_LEVEL,
        "tokenizer_config": {"chat_template": template},
        "config": {"eos_token_id": 1},
        **files,
    }
    for name, content in contents.items():
        if content is not None:
            (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def request(*messages: dict[str, Any], **fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": list(messages), **fields})


def text(encoder: PromptEncoder, token_ids: list[int]) -> str:
    table = encoder.tokenizer.token_bytes()
    return b"".join(table[i] or b"|" for i in token_ids).decode()


def test_messages_become_the_template_s_tokens(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_folder(write(tmp_path))
    token_ids = encoder.encode(request({"role": "system", "content": "s"}, {"role": "user", "content": "ab"}))
    assert text(encoder, token_ids) == "system:s|user:ab|"


def test_a_prefix_is_continued_and_another_assistant_message_is_not(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_folder(write(tmp_path))
    said = {"role": "assistant", "content": "ok "}
    hello = {"role": "user", "content": "hi"}
    assert text(encoder, encoder.encode(request(hello, {**said, "prefix": True}))) == "user:hi|assistant:ok "
    assert text(encoder, encoder.encode(request(hello, said, hello))) == "user:hi|assistant:ok |user:hi|"


def test_a_prefix_after_another_assistant_message_continues_both(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_folder(write(tmp_path))
    messages = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b", "prefix": True}]
    assert text(encoder, encoder.encode(request(*messages))) == "assistant:a\n\nb"


def test_safe_prompt_reaches_the_prompt(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_folder(write(tmp_path))
    plain = encoder.encode(request({"role": "user", "content": "x"}))
    safe = encoder.encode(request({"role": "user", "content": "x"}, safe_prompt=True))
    assert text(encoder, safe).startswith("system:Help safely")
    assert safe[-len(plain) :] == plain


def test_a_template_s_refusal_is_the_client_s_error(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_folder(write(tmp_path, template="{{ raise_exception('No ' + 'x' * 500) }}"))
    with pytest.raises(InvalidArguments, match=r"does not accept the messages: No x{100}") as caught:
        encoder.encode(request({"role": "user", "content": "x"}))
    assert caught.value.param == "messages"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE + "{{ messages[0].tool_calls | tojson }}"])
@pytest.mark.parametrize("depth", [100, 400, 900, 990, 5000])
def test_arguments_nested_deeply_are_encoded_or_refused(tmp_path: Path, template: str, depth: int) -> None:
    """Never a traceback: what cannot be read is shown as text, what cannot be walked is refused."""
    encoder = PromptEncoder.from_folder(write(tmp_path, template=template))
    call = {"id": "abc123def", "function": {"name": "f", "arguments": "[" * depth + "]" * depth}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        assert "[" * depth in text(encoder, encoder.encode(request(message)))
    except InvalidArguments as error:
        assert error.param == "messages"  # noqa: PT017 - either end is right, depending on the stack
        assert depth > 100


class TestEndTokens:
    def end_tokens(self, folder: Path, **files: Any) -> frozenset[int]:
        return PromptEncoder.from_folder(write(folder, **files)).eos_token_ids

    def test_one_or_several(self, tmp_path: Path) -> None:
        assert self.end_tokens(tmp_path, config={"eos_token_id": [1, 5]}) == {1, 5}
        assert self.end_tokens(tmp_path, config={"eos_token_id": 0}) == {0}

    def test_the_generation_config_comes_first(self, tmp_path: Path) -> None:
        assert self.end_tokens(tmp_path, generation_config={"eos_token_id": 3}) == {3}

    def test_a_generation_config_that_does_not_say(self, tmp_path: Path) -> None:
        assert self.end_tokens(tmp_path, generation_config={"temperature": 1}) == {1}

    @pytest.mark.parametrize("config", [{}, {"eos_token_id": None}])
    def test_nobody_says(self, tmp_path: Path, config: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedTokenizer, match="does not say which token ends an answer"):
            self.end_tokens(tmp_path, config=config)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedTokenizer, match=r"generation_config\.json is damaged"):
            self.end_tokens(tmp_path, generation_config="{")
