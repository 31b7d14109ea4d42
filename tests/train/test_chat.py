"""Conversations that are trained on are those that the server writes, with answers spelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from mezzo.model.config import ModelConfig
from mezzo.prompt.parts import Attachments, ImagePart
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.train.chat import ChatFormat
from mezzo.train.data.picture import Turn
from mezzo.train.stages import padded
from mezzo.weights import CheckpointFolder
from mezzo.weights.sources import NANO
from tests.train.small import make_chat, make_lessons, write_seeing
from tests.weights.pictures import png

ROWS, COLUMNS = 3, 5
QUESTION = Turn("Which river is it?", "apple 7.5")
LATER = Turn("And\nthe other?", "é")


def assert_same_prompt(encoder: TemplateEncoder, chat: ChatFormat, cell: int, *, image_first: bool) -> None:
    """Compare what the server writes with what is trained on, for two turns whose answers have no merges in them."""
    turns = [Turn(QUESTION.question, "7x"), LATER]
    chunks: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": "data:"},
        {"type": "text", "text": turns[0].question},
    ]
    if not image_first:
        chunks.reverse()
    messages = [
        {"role": "user", "content": chunks},
        {"role": "assistant", "content": turns[0].answer},
        {"role": "user", "content": turns[1].question},
    ]
    place = (0, 0 if image_first else 1)
    part = ImagePart(png(COLUMNS * cell, ROWS * cell), "messages[0]")
    conversation = chat.about_picture(turns, ROWS, COLUMNS, image_first=image_first)
    for number, num_messages in enumerate((1, 3)):
        request = ChatCompletionRequest.model_validate({"model": "nano", "messages": messages[:num_messages]})
        prompt = encoder.encode(request, Attachments({place: (part,)}))
        answers = [i for i in conversation.targets if i - 1 not in conversation.targets]
        assert conversation.token_ids[: answers[number]] == list(prompt.token_ids)


@pytest.fixture
def small_encoder(language: Path, tmp_path: Path) -> TemplateEncoder:
    """Return the prompt encoder of the small language model with a vision half."""
    lessons = make_lessons(language)
    return TemplateEncoder.from_folder(write_seeing(lessons, tmp_path))


@pytest.mark.parametrize("image_first", [True, False])
def test_prompts_are_the_servers(small_encoder: TemplateEncoder, language: Path, image_first: bool) -> None:
    assert_same_prompt(small_encoder, make_chat(language), 16, image_first=image_first)


@pytest.mark.slow
@pytest.mark.parametrize("image_first", [True, False])
def test_prompts_are_nanos(nano_folder: CheckpointFolder, image_first: bool) -> None:
    encoder = TemplateEncoder.from_folder(nano_folder.path)
    tokenizer = Tokenizer.from_file(str(nano_folder.path / "tokenizer.json"))
    assert NANO.vision is not None
    chat = ChatFormat(
        tokenizer, *(tokenizer.token_to_id(name) for name in NANO.vision.renamed_tokens.values())
    )
    config = ModelConfig.from_folder(nano_folder.path).vision
    assert config is not None
    assert_same_prompt(encoder, chat, config.merged_patch_size, image_first=image_first)


def test_answers_are_spelled(language: Path) -> None:
    chat = make_chat(language)
    assert len(chat.plain(" apple")) == 1
    spelled = chat.spelled(" apple")
    assert [chat.tokenizer.decode([token_id]) for token_id in spelled] == list(" apple")
    conversation = chat.about_picture((QUESTION, LATER), ROWS, COLUMNS)
    answers = chat.tokenizer.decode(
        [conversation.token_ids[i] for i in conversation.targets], skip_special_tokens=False
    )
    assert answers == f"{QUESTION.answer}<|im_end|>{LATER.answer}<|im_end|>"


def test_names_keep_their_own_tokens(language: Path) -> None:
    chat = make_chat(language)
    assert chat.answer("red") == chat.plain("red")
    assert chat.answer("Red apple") == chat.spelled("Red apple") != chat.plain("Red apple")


def test_a_picture_has_a_token_for_each_cell_and_an_end_for_each_row(language: Path) -> None:
    chat = make_chat(language)
    cell, row, end = chat.image_id, chat.break_id, chat.end_id
    assert chat.image(2, 3) == [cell, cell, cell, row, cell, cell, cell, end]
    assert chat.image(1, 1) == [cell, end]
    assert len({cell, row, end}) == 3


def test_shorter_conversations_are_padded_at_their_ends(language: Path) -> None:
    chat = make_chat(language)
    conversations = [chat.about_picture((turn,), 1, 2) for turn in (QUESTION, LATER)]
    rows = padded(conversations).tolist()
    for row, conversation in zip(rows, conversations, strict=True):
        length = len(conversation.token_ids)
        assert row[:length] == conversation.token_ids
        assert not any(row[length:])
    assert len(rows[0]) == len(rows[1]) == max(len(c.token_ids) for c in conversations)
