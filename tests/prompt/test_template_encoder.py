"""A request to token ids, with the files of a checkpoint folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from mezzo.prompt.encoder import EncodedPrompt
from mezzo.prompt.media.images import PreparedImage
from mezzo.prompt.output import TextPiece
from mezzo.prompt.parts import Attachments, ImagePart, TextPart
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.prompt.tokenizer import TextTokenizer, UnsupportedTokenizer
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import FeatureNotEnabled, InvalidArguments
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


def text(encoder: TemplateEncoder, token_ids: list[int]) -> str:
    table = encoder.tokenizer.token_bytes()
    return b"".join(table[i] or b"|" for i in token_ids).decode()


def test_messages_become_the_template_s_tokens(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(write(tmp_path))
    token_ids = encoder.encode(
        request({"role": "system", "content": "s"}, {"role": "user", "content": "ab"})
    ).token_ids
    assert text(encoder, token_ids) == "system:s|user:ab|"


def test_a_prefix_is_continued_and_another_assistant_message_is_not(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(write(tmp_path))
    said = {"role": "assistant", "content": "ok "}
    hello = {"role": "user", "content": "hi"}
    assert (
        text(encoder, encoder.encode(request(hello, {**said, "prefix": True})).token_ids)
        == "user:hi|assistant:ok "
    )
    assert (
        text(encoder, encoder.encode(request(hello, said, hello)).token_ids)
        == "user:hi|assistant:ok |user:hi|"
    )


def test_a_prefix_after_another_assistant_message_continues_both(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(write(tmp_path))
    messages = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b", "prefix": True}]
    assert text(encoder, encoder.encode(request(*messages)).token_ids) == "assistant:a\n\nb"


def test_safe_prompt_reaches_the_prompt(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(write(tmp_path))
    plain = encoder.encode(request({"role": "user", "content": "x"})).token_ids
    safe = encoder.encode(request({"role": "user", "content": "x"}, safe_prompt=True)).token_ids
    assert text(encoder, safe).startswith("system:Help safely")
    assert safe[-len(plain) :] == plain


def test_a_template_s_refusal_is_the_client_s_error(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(
        write(tmp_path, template="{{ raise_exception('No ' + 'x' * 500) }}")
    )
    with pytest.raises(InvalidArguments, match=r"does not accept the messages: No x{100}") as caught:
        encoder.encode(request({"role": "user", "content": "x"}))
    assert caught.value.param == "messages"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE + "{{ messages[0].tool_calls | tojson }}"])
@pytest.mark.parametrize("depth", [100, 400, 900, 990, 5000])
def test_arguments_nested_deeply_are_encoded_or_refused(tmp_path: Path, template: str, depth: int) -> None:
    """Never a traceback: what cannot be read is shown as text, what cannot be walked is refused."""
    encoder = TemplateEncoder.from_folder(write(tmp_path, template=template))
    call = {"id": "abc123def", "function": {"name": "f", "arguments": "[" * depth + "]" * depth}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        assert "[" * depth in text(encoder, encoder.encode(request(message)).token_ids)
    except InvalidArguments as error:
        assert error.param == "messages"  # noqa: PT017 - either end is right, depending on the stack
        assert depth > 100


class TestEndTokens:
    def end_tokens(self, folder: Path, **files: Any) -> frozenset[int]:
        return TemplateEncoder.from_folder(write(folder, **files)).eos_token_ids

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


IMAGE_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ':' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for item in m.content %}{{ item.text if item.type == 'text' else '[IMG]' }}{% endfor %}{% endif %}"
    "{{ '</s>' }}{% endfor %}"
)
IMAGE_CONTROL = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]


class Grey:
    """In the place of an image processor: every image is grey, its data say its rows and columns."""

    def prepare(self, part: ImagePart) -> PreparedImage:
        rows, columns = part.data
        return PreparedImage(np.zeros((rows * 2, columns * 2, 3), np.uint8), rows, columns)


def write_vision(folder: Path, *, control: list[str] = IMAGE_CONTROL, template: str = IMAGE_TEMPLATE) -> Path:
    first = max(token["id"] for token in BYTE_LEVEL["added_tokens"]) + 1000
    added = [
        {**BYTE_LEVEL["added_tokens"][0], "id": first + i, "content": content}
        for i, content in enumerate(control)
    ]
    tokenizer = {**BYTE_LEVEL, "added_tokens": [*BYTE_LEVEL["added_tokens"], *added]}
    loaded = TextTokenizer(tokenizer).control_tokens
    return write(
        folder,
        template=template,
        tokenizer=tokenizer,
        config={"eos_token_id": 1, "image_token_index": loaded[control[0]]},
    )


def vision_encoder(folder: Path, **options: Any) -> TemplateEncoder:
    read = TemplateEncoder.from_folder(write_vision(folder, **options))
    return TemplateEncoder(
        read.tokenizer, read.template, read.eos_token_ids,
        image_processor=cast(Any, Grey()), image_tokens=read.image_tokens,
    )  # fmt: skip


def image_at(rows: int, columns: int, where: str = "w") -> tuple[ImagePart]:
    return (ImagePart(bytes([rows, columns]), where),)


def red_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = {"type": "image_url", "image_url": "https://example.org/a.png"}


def say(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class TestImages:
    def shown(self, encoder: TemplateEncoder, prompt: EncodedPrompt) -> str:
        names = {token_id: content for content, token_id in encoder.tokenizer.control_tokens.items()}
        letters = {"[IMG]": "#", "[IMG_BREAK]": "/", "[IMG_END]": "."}
        table = encoder.tokenizer.token_bytes()
        return "".join(
            letters.get(names[i], "|") if i in names else table[i].decode() for i in prompt.token_ids
        )

    def test_a_checkpoint_with_a_vision_encoder_reads_images(self, tmp_path: Path) -> None:
        write_vision(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"vision_config": {"model_type": "pixtral", "patch_size": 14}, "spatial_merge_size": 2}
        (tmp_path / "config.json").write_text(json.dumps(config))
        encoder = TemplateEncoder.from_folder(tmp_path)
        assert encoder.capabilities == {"vision", "function_calling"}
        attached = Attachments({(0, 0): (ImagePart(red_png(57, 28), "w"),)})
        prompt = encoder.encode(request({"role": "user", "content": [IMAGE, say("?")]}), attached)
        assert self.shown(encoder, prompt) == "user:###.?|"
        assert prompt.images[0].image.pixels.shape == (28, 84, 3)

    def test_a_vision_encoder_that_is_not_supported(self, tmp_path: Path) -> None:
        write(tmp_path, config={"eos_token_id": 1, "vision_config": {"model_type": "clip"}})
        with pytest.raises(UnsupportedTokenizer, match="vision encoder clip is not supported"):
            TemplateEncoder.from_folder(tmp_path)

    def test_an_image_takes_its_rows_where_the_template_names_it(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path)
        content = [say("a"), IMAGE, say("b"), IMAGE]
        attached = Attachments({(0, 1): image_at(2, 3), (0, 3): image_at(1, 2)})
        prompt = encoder.encode(request({"role": "user", "content": content}), attached)
        assert self.shown(encoder, prompt) == "user:a###/###.b##.|"
        assert [(p.start, p.num_tokens, p.image.rows) for p in prompt.images] == [(6, 8, 2), (15, 3, 1)]
        assert encoder.capabilities == {"vision", "function_calling"}

    def test_a_tokenizer_without_breaks_gets_patches_only(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path, control=["[IMG]"])
        attached = Attachments({(0, 0): image_at(2, 2)})
        prompt = encoder.encode(request({"role": "user", "content": [IMAGE, say("x")]}), attached)
        assert self.shown(encoder, prompt) == "user:####x|"
        assert prompt.images[0].num_tokens == 4

    def test_neighbours_keep_their_images(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path)
        messages = [{"role": "user", "content": c} for c in ("a", [IMAGE, say("b")], "c")]
        prompt = encoder.encode(request(*messages), Attachments({(1, 0): image_at(1, 1)}))
        assert self.shown(encoder, prompt) == "user:a#.b\n\nc|"

    def test_a_document_is_read_in_its_place(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path)
        content = [say("a"), {"type": "document_url", "document_url": "https://example.org/a.pdf"}, say("b")]
        parts = (TextPart("one "), *image_at(1, 1), TextPart(" two"))
        prompt = encoder.encode(request({"role": "user", "content": content}), Attachments({(0, 1): parts}))
        assert self.shown(encoder, prompt) == "user:aone #. twob|"

    def test_text_that_looks_like_an_image_token_is_text(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path)
        content = [say("[IMG][IMG_BREAK]"), IMAGE, say("[IMG_END]")]
        prompt = encoder.encode(
            request({"role": "user", "content": content}), Attachments({(0, 1): image_at(1, 1)})
        )
        assert self.shown(encoder, prompt) == "user:[IMG][IMG_BREAK]#.[IMG_END]|"

    @pytest.mark.parametrize("template", ["{{ 'x' }}", IMAGE_TEMPLATE + "{{ '[IMG]' }}"])
    def test_a_template_with_another_number_of_places(self, tmp_path: Path, template: str) -> None:
        encoder = vision_encoder(tmp_path, template=template)
        attached = Attachments({(0, 0): image_at(1, 1)})
        with pytest.raises(
            InvalidArguments, match="does not show the images of the messages: the prompt has"
        ):
            encoder.encode(request({"role": "user", "content": [IMAGE]}), attached)

    def test_a_checkpoint_that_reads_no_images(self, tmp_path: Path) -> None:
        encoder = TemplateEncoder.from_folder(write(tmp_path, template=IMAGE_TEMPLATE))
        assert encoder.capabilities == {"function_calling"}
        attached = Attachments({(0, 0): image_at(1, 1, "messages[0].content[0]")})
        with pytest.raises(FeatureNotEnabled, match=r"^messages\[0\].content\[0\]: image content is not"):
            encoder.encode(request({"role": "user", "content": [IMAGE]}), attached)

    def test_images_in_tool_messages(self, tmp_path: Path) -> None:
        encoder = vision_encoder(tmp_path)
        message = {"role": "tool", "content": [IMAGE], "tool_call_id": "abc123def"}
        with pytest.raises(
            InvalidArguments, match=r"messages\[0\].content\[0\]: image content .* tool messages"
        ):
            encoder.encode(request(message), Attachments({(0, 0): image_at(1, 1)}))


def test_reasoning_effort_is_nothing_a_template_knows(tmp_path: Path) -> None:
    encoder = TemplateEncoder.from_folder(write(tmp_path))
    with pytest.raises(FeatureNotEnabled, match=r"^reasoning_effort is not enabled for this model$"):
        encoder.encode(request({"role": "user", "content": "x"}, reasoning_effort="none"))


def test_answers_are_plain_text(tmp_path: Path) -> None:
    parser = TemplateEncoder.from_folder(write(tmp_path)).output_parser()
    assert parser.feed("a[TOOL_CALLS]") == [TextPiece("a[TOOL_CALLS]")]
    assert parser.finish("stop") == ([], "stop")
