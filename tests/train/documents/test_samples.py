"""Samples are what serving has in its context: the prompt before the answer, and prompt and answer a turn later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.encoder import PromptEncoder
from mezzo.prompt.load import load_encoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.train.documents.files import load_attachments
from mezzo.train.documents.lines import Conversation, InvalidLine
from mezzo.train.documents.samples import Sample, SampleMaker, joined
from tests.prompt.mistral.tokenizers import ALL
from tests.prompt.mistral.tokenizers import encoder as mistral_encoder
from tests.train.documents.small import (
    IM_END,
    IMAGE,
    TEMPLATE,
    about_picture,
    chat_checkpoint,
    data_uri,
    png,
    said,
    user,
)

CALL = {"id": "abc123def", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
RESULT = {"role": "tool", "content": "1", "tool_call_id": "abc123def", "name": "f"}
THINKING = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "ok"},
]


def conversation(*messages: dict[str, Any], **fields: Any) -> Conversation:
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": list(messages), **fields})
    said_at = tuple(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return Conversation(request, said_at)


def samples(encoder: PromptEncoder, *messages: dict[str, Any], **fields: Any) -> list[Sample]:
    maker = SampleMaker(encoder, can_see=True)
    of_line = conversation(*messages, **fields)
    return maker.samples(of_line, load_attachments(of_line.request, Path()), 1)


def served(encoder: PromptEncoder, *messages: dict[str, Any], **fields: Any) -> list[int]:
    """Return the prompt of a request, as `EmbeddedBackend.submit` makes it."""
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": list(messages), **fields})
    return encoder.encode(request, load_attachments(request, Path())).token_ids


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return load_encoder(chat_checkpoint(tmp_path_factory.mktemp("eyes"), sees=True))


@pytest.mark.parametrize("name", ALL)
def test_prompt_and_next_turn_are_those_of_serving(name: str) -> None:
    encoder = mistral_encoder(name)
    (sample,) = samples(encoder, user("Hi there"), said("Hello you. "))
    prompt = served(encoder, user("Hi there"))
    assert sample.token_ids[: len(prompt)] == prompt
    assert sample.targets == list(range(len(prompt), len(sample.token_ids)))
    assert sample.token_ids[-1] in encoder.eos_token_ids
    later = served(encoder, user("Hi there"), said("Hello you. "), user("And?"))
    assert later[: len(sample.token_ids)] == sample.token_ids


@pytest.mark.parametrize("name", [name for name in ALL if "v1-" not in name and not name.endswith("-v1")])
def test_calls_and_answers_to_results(name: str) -> None:
    encoder = mistral_encoder(name)
    messages = [user("Hi"), said("", tool_calls=[CALL]), RESULT, said("One.")]
    call, answer = samples(encoder, *messages, tools=TOOLS)
    for sample, at in ((call, 1), (answer, 3)):
        prompt = served(encoder, *messages[:at], tools=TOOLS)
        assert sample.token_ids[: len(prompt)] == prompt
        assert sample.targets[0] == len(prompt)
        assert sample.token_ids[-1] in encoder.eos_token_ids
        assert encoder.eos_token_ids.isdisjoint(sample.token_ids[len(prompt) : -1])
    history = served(encoder, *messages[:3], tools=TOOLS)
    assert history[: len(call.token_ids)] == call.token_ids


@pytest.mark.parametrize("name", ["tekken-v13", "tekken-v15"])
def test_reasoning_is_learnt_with_the_answer(name: str) -> None:
    encoder = mistral_encoder(name)
    (sample,) = samples(encoder, user("Hi"), said(THINKING))
    assert (
        served(encoder, user("Hi"), said(THINKING), user("And?"))[: len(sample.token_ids)] == sample.token_ids
    )


@pytest.mark.parametrize(
    ("name", "num_with_system", "num_with_tools"),
    [
        ("tekken-v3", 2, 2),
        ("tekken-v7", 1, 2),
        ("tekken-v11", 1, 2),
        ("tekken-v13", 1, 1),
        ("tekken-v15", 1, 1),
    ],
)
def test_what_moves_to_the_last_question_makes_samples_of_their_own(
    name: str, num_with_system: int, num_with_tools: int
) -> None:
    """Where it does, what was read for an answer is not the beginning of the next one's prompt."""
    turns = [user("a"), said("b"), user("c"), said("d")]
    with_system = samples(mistral_encoder(name), {"role": "system", "content": "s"}, *turns)
    with_tools = samples(mistral_encoder(name), *turns, tools=TOOLS)
    assert (len(joined(with_system)), len(joined(with_tools))) == (num_with_system, num_with_tools)


def test_a_template_s_conversation_is_read_once(chat: PromptEncoder) -> None:
    messages = [{"role": "system", "content": "s"}, user("a"), said("b"), user("c"), said("d")]
    first, second = samples(chat, *messages)
    assert second.token_ids[: len(served(chat, *messages[:4]))] == served(chat, *messages[:4])
    (both,) = joined([first, second])
    assert both.token_ids == second.token_ids
    assert both.targets == first.targets + second.targets
    assert [both.token_ids[at] for at in both.targets].count(IM_END) == 2
    assert served(chat, *messages, user("e"))[: len(both.token_ids)] == both.token_ids


def test_pictures_have_their_tokens(chat: PromptEncoder) -> None:
    question = about_picture(data_uri(png((255, 0, 0), (24, 16))))
    (sample,) = samples(chat, question, said("Red."))
    prompt = served(chat, question)
    assert sample.token_ids[: len(prompt)] == prompt
    assert sample.token_ids.count(IMAGE) == 3 * 2
    assert len(sample.pictures) == 1


def test_the_end_is_the_format_s_where_there_are_several(tmp_path: Path) -> None:
    folder = chat_checkpoint(tmp_path / "several")
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 1, 3]}')
    assert SampleMaker(load_encoder(folder), can_see=False).end_token_id == IM_END


def test_an_answer_that_is_not_behind_its_prompt_is_refused(tmp_path: Path) -> None:
    """A template that opens answers with something that history does not show."""
    template = TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>{% endif")
    encoder = load_encoder(chat_checkpoint(tmp_path / "odd", template=template))
    with pytest.raises(
        InvalidLine, match=r"messages\[1\]: this model's prompt format does not show the answer right behind"
    ):
        samples(encoder, user("a"), said("b"))


def test_control_tokens_in_an_answer_are_text(chat: PromptEncoder) -> None:
    (sample,) = samples(chat, user("a"), said("<|im_end|>"))
    assert [sample.token_ids[at] for at in sample.targets].count(IM_END) == 1
