"""nano's chat template: SmolLM2's own word for word where there is text alone, and images in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.weights.pictures import png
from tests.weights.vision_files import SPARE

from mezzo.prompt.encoder import EncodedPrompt
from mezzo.prompt.parts import Attachments, ImagePart
from mezzo.prompt.template import ChatTemplate, TemplateRefusal
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.weights import SilentProgress
from mezzo.weights.convert import Origin, convert_gguf

# As it stands in the GGUF of SmolLM2-135M-Instruct.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONVERSATIONS: list[list[tuple[str, str]]] = [
    [("user", "Hello the world")],
    [("system", "Be brief."), ("user", " lead and trail \n")],
    [("system", ""), ("user", "")],
    [("user", "a"), ("assistant", "\n\n"), ("user", "{{ x }} {% raw %} <b>&amp;")],
    [("user", "[IMG]<|im_end|>[IMG_BREAK] [IMG_END]<empty>"), ("system", "late"), ("user", "é 12")],
]
IMAGE = {"type": "image_url", "image_url": "https://example.org/a.png"}


@pytest.fixture
def encoder(
    make_gguf: Callable[..., Path], make_vision: Callable[..., Any], tmp_path: Path
) -> TemplateEncoder:
    convert_gguf(
        make_gguf(spare=SPARE),
        tmp_path / "out",
        origin=Origin("tiny.gguf", "0" * 64),
        progress=SilentProgress(),
        vision=make_vision(),
    )
    return TemplateEncoder.from_folder(tmp_path / "out")


def messages(conversation: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in conversation]


def encode(encoder: TemplateEncoder, *given: dict[str, Any], **sizes: Any) -> EncodedPrompt:
    """Encode messages in which every image chunk is a picture of 40 x 20 pixels: three rows of five tokens."""
    request = ChatCompletionRequest.model_validate({"model": "nano", "messages": list(given), **sizes})
    places = {
        (i, k): (ImagePart(png(40, 20), f"messages[{i}].content[{k}]"),)
        for i, message in enumerate(given)
        for k, chunk in enumerate(message["content"])
        if chunk == IMAGE
    }
    return encoder.encode(request, Attachments(places))


def shown(encoder: TemplateEncoder, prompt: EncodedPrompt) -> str:
    names = {token_id: content for content, token_id in encoder.tokenizer.control_tokens.items()}
    table = encoder.tokenizer.token_bytes()
    return "".join(f"‹{names[i]}›" if i in names else table[i].decode() for i in prompt.token_ids)


START, END = "‹<|im_start|>›", "‹<|im_end|>›\n"
ROW = "‹[IMG]›" * 5
PICTURE = f"{ROW}‹[IMG_BREAK]›{ROW}‹[IMG_BREAK]›{ROW}‹[IMG_END]›"


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("as_chunks", [False, True])
def test_text_alone_is_as_smollm2_has_it(
    encoder: TemplateEncoder, conversation: list[tuple[str, str]], as_chunks: bool
) -> None:
    original = ChatTemplate(SMOLLM2, encoder.tokenizer, {})
    given = messages(conversation)
    expected = original.encode(given, continues_last=False)
    if as_chunks:
        given = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in given]
    assert encoder.template.encode(given, continues_last=False) == expected
    prefixed = [*messages(conversation), {"role": "assistant", "content": "The answer is"}]
    assert encoder.template.encode(prefixed, continues_last=True) == original.encode(
        prefixed, continues_last=True
    )


def test_with_an_image_there_is_no_system_message_of_its_own(encoder: TemplateEncoder) -> None:
    chunks = [{"type": "text", "text": "What is "}, IMAGE, {"type": "text", "text": " this?"}]
    prompt = encode(encoder, {"role": "user", "content": chunks})
    assert shown(encoder, prompt) == f"{START}user\nWhat is {PICTURE} this?{END}{START}assistant\n"
    assert [(p.image.rows, p.image.columns, p.num_tokens) for p in prompt.images] == [(3, 5, 18)]
    assert np.all(prompt.images[0].image.pixels == np.array([200, 30, 60], np.uint8))


def test_an_image_anywhere_counts(encoder: TemplateEncoder) -> None:
    prompt = encode(
        encoder,
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [IMAGE, IMAGE]},
    )
    assert shown(encoder, prompt) == (
        f"{START}user\na{END}{START}assistant\nb{END}{START}user\n{PICTURE}{PICTURE}{END}{START}assistant\n"
    )
    assert len(prompt.images) == 2


def test_a_system_message_of_the_caller_stays(encoder: TemplateEncoder) -> None:
    prompt = encode(encoder, {"role": "system", "content": "Be brief."}, {"role": "user", "content": [IMAGE]})
    assert shown(encoder, prompt) == (
        f"{START}system\nBe brief.{END}{START}user\n{PICTURE}{END}{START}assistant\n"
    )


def test_text_that_spells_image_tokens_is_text(encoder: TemplateEncoder) -> None:
    text = "[IMG][IMG_BREAK][IMG_END]<empty><|im_end|>"
    prompt = encode(encoder, {"role": "user", "content": [IMAGE, {"type": "text", "text": text}]})
    assert shown(encoder, prompt) == f"{START}user\n{PICTURE}{text}{END}{START}assistant\n"
    assert len(prompt.images) == 1


def test_other_content_is_refused(encoder: TemplateEncoder) -> None:
    with pytest.raises(TemplateRefusal, match="content of type audio is not supported"):
        encoder.template.encode([{"role": "user", "content": [{"type": "audio"}]}], continues_last=False)
