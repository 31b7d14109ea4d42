"""Prompts of Mistral's checkpoints: the tokens are those of mistral_common, whatever the request looks like."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image

from mezzo.prompt.mistral.encoder import MistralEncoder
from mezzo.prompt.parts import Attachments, ImagePart, TextPart
from mezzo.prompt.safety import SAFETY_PROMPT
from mezzo.prompt.tokenizer import UnsupportedTokenizer
from mezzo.protocol.errors import (
    DomainError,
    FeatureNotEnabled,
    InvalidArguments,
    InvalidAssistantMessage,
    MessageOrder,
)
from tests.prompt.mistral.requests import (
    ID,
    ID2,
    ONE_CALL,
    SHAPES,
    assistant,
    attachments,
    calls,
    encode_wire,
    image,
    mistral_request,
    request,
    system,
    text,
    thinking,
    tool,
    user,
)
from tests.prompt.mistral.tokenizers import (
    ALL,
    control_tokens,
    encoder,
    reference,
    tokenizer_file,
    write_tekken,
)


def _differs_in(name: str, shape: str) -> str | None:
    """Return why a format cannot show a shape; None if it can."""
    family, version = name.split("-")
    number = int(version[1:].partition("m")[0])
    needs = {
        "trace": number >= 13,
        "effort": number >= 15,
        "image": version == "v7m1" or family == "tekken",
        "image in a result": number >= 15,
        "trace in the system message": number == 13,
        "tools": number >= 2,
        "result": number >= 2,
        "call": number >= 2,
        "content and calls": number >= 7,
        "arguments": number >= 2,
    }
    if shape in {"tools that may not be called", "no tools"}:
        return None
    if shape == "two calls" and number == 2:
        return "v2 shows one result only"
    return next((what for what, is_there in needs.items() if what in shape and not is_there), None)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_are_those_of_the_reference(name: str, shape: str) -> None:
    wire = SHAPES[shape]
    if _differs_in(name, shape) is not None:
        with pytest.raises(DomainError) as caught:
            encode_wire(name, wire)
        assert caught.value.status == 400
        assert len(caught.value.message) < 350
        assert "=" not in caught.value.message, "a representation of an object"
        return
    expected = reference(name).encode_chat_completion(mistral_request(wire, SAFETY_PROMPT)).tokens
    assert encode_wire(name, wire) == expected


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
    ],
)
def test_a_response_format_is_shown_to_models_that_know_it(
    tmp_path: Path, response_format: dict[str, Any]
) -> None:
    """Features refuses JSON until it can be promised; the prompt is ready for it."""
    builder = {"json_schema": {"type": "json_schema", "accepts_none": False, "default": None}}
    file = write_tekken(tmp_path / "tekken.json", "v15", model_settings_builder=builder)
    wire = {"messages": [user()], "response_format": response_format}
    expected = MistralTokenizer.from_file(str(file)).encode_chat_completion(mistral_request(wire, "")).tokens
    read = MistralEncoder.from_file(file)
    assert read.encode(request(**wire)).token_ids == expected
    assert read.reasoning_efforts == ()


def _one_colour(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), colour).save(buffer, "PNG")
    return buffer.getvalue()


class TestImages:
    @pytest.mark.parametrize("name", ["sentencepiece-v7m1", "tekken-v3", "tekken-v15"])
    @pytest.mark.parametrize(
        ("width", "height"), [(1, 1), (28, 28), (29, 28), (500, 3), (16, 1025), (1541, 1540), (2000, 700)]
    )
    def test_every_size_has_the_reference_s_rows_and_columns(
        self, name: str, width: int, height: int
    ) -> None:
        wire = {"messages": [user([text("a"), image(width, height), text("b")])]}
        expected = reference(name).encode_chat_completion(mistral_request(wire, SAFETY_PROMPT))
        prompt = encoder(name).encode(request(**wire), attachments(wire))
        assert prompt.token_ids == expected.tokens
        [placed] = prompt.images
        [array] = expected.images
        assert placed.image.pixels.shape[:2] == array.shape[1:]
        shown = expected.tokens[placed.start : placed.start + placed.num_tokens]
        control = reference(name).instruct_tokenizer.tokenizer.get_special_token
        row = [control("[IMG]")] * placed.image.columns
        rows = [*row, control("[IMG_BREAK]")] * placed.image.rows
        assert shown == [*rows[:-1], control("[IMG_END]")]

    def test_images_are_found_in_the_order_of_the_prompt(self) -> None:
        content = [image(28, 28), image(56, 28), text("a"), image(28, 56)]
        wire = {"messages": [user(content), assistant(), user([text("b"), image(84, 28)])]}
        prompt = encoder("tekken-v13").encode(request(**wire), attachments(wire))
        assert [(p.image.rows, p.image.columns) for p in prompt.images] == [(1, 1), (1, 2), (2, 1), (1, 3)]
        assert [p.start for p in prompt.images] == [2, 4, 8, prompt.images[3].start]
        assert all(prompt.token_ids[p.start] == 10 for p in prompt.images)
        assert all(prompt.token_ids[p.start + p.num_tokens - 1] == 13 for p in prompt.images)

    def test_pictures_of_results_follow_their_results_into_the_order_of_the_calls(self) -> None:
        """Results may come in any order; the reference sorts them, and pictures of one size would be swapped unseen."""
        made = calls((ID, "a", "{}"), (ID2, "b", "{}"))
        for first, second in [((28, 28), (56, 28)), ((28, 56), (28, 28)), ((28, 28), (28, 28))]:
            results = [tool([image(*first)], ID2), tool([image(*second)], ID)]
            wire = {"messages": [user("x"), made, *results]}
            prompt = encoder("tekken-v15").encode(request(**wire), attachments(wire))
            expected = reference("tekken-v15").encode_chat_completion(mistral_request(wire, ""))
            assert prompt.token_ids == expected.tokens
            shapes = [placed.image.pixels.shape[:2] for placed in prompt.images]
            assert shapes == [second[::-1], first[::-1]] == [array.shape[1:] for array in expected.images]

    def test_pictures_of_one_size_are_not_swapped(self) -> None:
        made = calls((ID, "a", "{}"), (ID2, "b", "{}"))
        results = [tool([image(28, 28)], ID2), tool([image(28, 28)], ID)]
        wire = {"messages": [user("x"), made, *results]}
        red, blue = (ImagePart(_one_colour(colour), "") for colour in ("red", "blue"))
        prompt = encoder("tekken-v15").encode(request(**wire), Attachments({(2, 0): (red,), (3, 0): (blue,)}))
        assert [placed.image.pixels[0, 0].tolist() for placed in prompt.images] == [[0, 0, 255], [255, 0, 0]]

    def test_a_document_is_read_in_its_place(self) -> None:
        data = next(iter(attachments({"messages": [user([image()])]}).by_position.values()))
        document = {"type": "document_url", "document_url": "https://example.org/a.pdf"}
        wire = {"messages": [user([text("a"), document, text("c")])]}
        parts = Attachments({(0, 1): (TextPart("one"), *data, TextPart("two"))})
        same = {"messages": [user([text("a"), text("one"), image(), text("two"), text("c")])]}
        prompt = encoder("tekken-v15").encode(request(**wire), parts)
        assert prompt.token_ids == encode_wire("tekken-v15", same)
        assert len(prompt.images) == 1

    def test_nothing_is_fetched(self) -> None:
        """A file that exists and a host that does not: the URL is no part of the prompt."""
        for url in ("file:///etc/hostname", "http://127.0.0.1:9/a.png"):
            wire = {"messages": [user([{"type": "image_url", "image_url": url}])]}
            part = next(iter(attachments({"messages": [user([image()])]}).by_position.values()))
            prompt = encoder("tekken-v7").encode(request(**wire), Attachments({(0, 0): part}))
            assert len(prompt.images) == 1

    def test_a_model_without_vision(self) -> None:
        wire = {"messages": [user([image()])]}
        with pytest.raises(
            FeatureNotEnabled, match=r"messages\[0\].content\[0\]: image content is not enabled"
        ):
            encoder("sentencepiece-v7").encode(request(**wire), attachments(wire))


class TestRefusals:
    """What a format cannot show is refused by name, and never shows what mistral_common's objects look like."""

    def refusal(self, name: str, **wire: Any) -> DomainError:
        with pytest.raises(DomainError) as caught:
            encoder(name).encode(request(**wire), attachments(wire))
        return caught.value

    def test_an_effort_that_the_model_has_not(self) -> None:
        error = self.refusal("tekken-v15", messages=[user()], reasoning_effort="low")
        assert error.body() == {
            "object": "error",
            "message": "reasoning_effort low is not supported for this model, supported values: ['none', 'high']",
            "type": "invalid_request_invalid_args",
            "param": "reasoning_effort",
            "code": "3051",
            "raw_status_code": 400,
        }

    @pytest.mark.parametrize("name", ["sentencepiece-v7", "tekken-v13"])
    def test_a_model_without_efforts(self, name: str) -> None:
        error = self.refusal(name, messages=[user()], reasoning_effort="none")
        assert error.message == "reasoning_effort is not enabled for this model"

    def test_content_and_calls_before_v7(self) -> None:
        error = self.refusal("tekken-v3", messages=[user(), calls((ID, "a", "{}"), content="x"), tool()])
        assert isinstance(error, InvalidAssistantMessage)
        assert error.message == "Assistant message must have either content or tool_calls, but not both."

    @pytest.mark.parametrize("name", ["sentencepiece-v2", "tekken-v7", "tekken-v15"])
    def test_an_assistant_message_of_empty_chunks(self, name: str) -> None:
        error = self.refusal(name, messages=[user(), assistant([text("")]), user()])
        assert isinstance(error, InvalidAssistantMessage)
        assert error.message == "Assistant message must have either content or tool_calls, but not none."

    def test_an_image_in_a_result_before_v15(self) -> None:
        error = self.refusal("tekken-v13", messages=[*ONE_CALL, tool([text("a"), image()])])
        assert error.message == (
            "messages[2].content[1]: image content is not supported in tool messages of this model"
        )

    def test_a_trace_in_a_system_message_of_v15(self) -> None:
        error = self.refusal("tekken-v15", messages=[system([thinking("a")]), user()])
        assert error.message == (
            "messages[0].content[0]: thinking content is not supported in system messages of this model"
        )

    def test_a_trace_that_holds_a_reference(self) -> None:
        chunk = {"type": "thinking", "thinking": [text("a"), {"type": "reference", "reference_ids": [1]}]}
        error = self.refusal("tekken-v13", messages=[user(), assistant([chunk]), user()])
        assert error.message == (
            "messages[1].content[0].thinking[1]: reference content is not supported by this server"
        )

    @pytest.mark.parametrize("arguments", ["[" * 100_000, '{"a": ' * 5000 + "1" + "}" * 5000])
    @pytest.mark.parametrize("name", ["sentencepiece-v3", "tekken-v15"])
    def test_arguments_nested_too_deeply(self, name: str, arguments: str) -> None:
        error = self.refusal(name, messages=[user(), calls((ID, "a", arguments)), tool()])
        assert isinstance(error, InvalidArguments)
        assert error.param == "messages"

    def test_numbers_that_python_does_not_read(self) -> None:
        error = self.refusal("tekken-v7", messages=[user(), calls((ID, "a", "1" * 5000)), tool()])
        assert error.message == "The prompt format of this model cannot show the messages"

    def test_a_conversation_that_begins_with_calls(self) -> None:
        """mistral_common does not look for calls in a first message."""
        for name in ("tekken-v7", "tekken-v15"):
            error = self.refusal(name, messages=[calls((ID, "a", "{}")), tool()])
            assert isinstance(error, MessageOrder)

    def test_half_characters(self) -> None:
        """JSON in JSON may hold a lone surrogate, which is no text."""
        wire = {"messages": [user(), calls((ID, "a", '{"a": "\\ud800"}')), tool()]}
        assert self.refusal("sentencepiece-v7", **wire).status == 400
        assert encode_wire("tekken-v7", wire)


class TestGaps:
    @pytest.mark.parametrize("name", [name for name in ALL if name != "sentencepiece-v1"])
    @pytest.mark.parametrize("suffix", ["", "    return total\n", "[PREFIX] [SUFFIX]"])
    def test_tokens_are_those_of_the_reference(self, name: str, suffix: str) -> None:
        prompt = "def add(a, b):\n    # [SUFFIX] é\n"
        expected = reference(name).encode_fim(FIMRequest(prompt=prompt, suffix=suffix or None)).tokens
        assert encoder(name).encode_fim(prompt, suffix) == expected

    def test_v1_has_no_tokens_for_it(self) -> None:
        with pytest.raises(NotImplementedError):
            encoder("sentencepiece-v1").encode_fim("a", "b")


class TestTokenBytes:
    @pytest.mark.parametrize("name", ALL)
    def test_bytes_of_a_text_are_the_text(self, name: str) -> None:
        said = "Ça va? 你好 🙂\n\t x  y 12[INST]"
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        table = encoder(name).token_bytes()
        ids = tokenizer.encode(said, bos=False, eos=False)
        prefix = " " if name.startswith("sentencepiece") else ""  # dropped by the parser of answers
        assert b"".join(table[i] for i in ids).decode() == prefix + said
        assert len(table) == tokenizer.n_words

    @pytest.mark.parametrize("name", ALL)
    def test_control_tokens_have_none(self, name: str) -> None:
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        table = encoder(name).token_bytes()
        assert {i for i, raw in enumerate(table) if not raw} == {*tokenizer.special_ids, tokenizer.unk_id}


class TestWhatAnEncoderSays:
    @pytest.mark.parametrize(
        ("name", "capabilities", "markers"),
        [
            ("sentencepiece-v1", set(), set()),
            ("sentencepiece-v2", {"function_calling", "completion_fim"}, {"[TOOL_CALLS]"}),
            ("sentencepiece-v7", {"function_calling", "completion_fim"}, {"[TOOL_CALLS]"}),
            ("sentencepiece-v7m1", {"function_calling", "completion_fim", "vision"}, {"[TOOL_CALLS]"}),
            (
                "tekken-v11",
                {"function_calling", "completion_fim", "vision"},
                {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"},
            ),
            (
                "tekken-v13",
                {"function_calling", "completion_fim", "vision", "reasoning"},
                {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"},
            ),
        ],
    )
    def test_capabilities_and_markers(self, name: str, capabilities: set[str], markers: set[str]) -> None:
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        assert encoder(name).capabilities == capabilities
        assert {tokenizer.id_to_piece(i) for i in encoder(name).marker_token_ids} == markers
        assert encoder(name).eos_token_ids == {tokenizer.eos_id}

    def test_reasoning_efforts(self) -> None:
        assert encoder("tekken-v15").reasoning_efforts == ("none", "high")
        assert encoder("tekken-v13").reasoning_efforts == ()
        assert encoder("sentencepiece-v7").reasoning_efforts == ()

    def test_a_version_without_tokens_for_traces(self, tmp_path: Path) -> None:
        read = MistralEncoder.from_file(
            write_tekken(tmp_path / "tekken.json", "v13", special_tokens=control_tokens("v11"), image=None)
        )
        assert read.capabilities == {"function_calling", "completion_fim"}
        with pytest.raises(FeatureNotEnabled, match=r"thinking content is not enabled"):
            read.encode(request(messages=[user(), assistant([thinking("a")]), user()]))


class TestPromptMode:
    """What checkpoints bring to make themselves reason, as `prompt_mode` asks for it."""

    PROMPT = "First draft your thinking:\n[THINK]Your thoughts.[/THINK]\nThen answer."

    def encoder(self, folder: Path, version: str, prompt: str | None) -> MistralEncoder:
        if prompt is not None:
            (folder / "SYSTEM_PROMPT.txt").write_text(prompt)
        return MistralEncoder.from_file(write_tekken(folder / "tekken.json", version))

    def test_the_prompt_is_put_before_the_conversation(self, tmp_path: Path) -> None:
        made = self.encoder(tmp_path, "v13", self.PROMPT)
        asked = made.encode(request(messages=[user()], prompt_mode="reasoning"))
        chunks = [text("First draft your thinking:\n"), thinking("Your thoughts."), text("\nThen answer.")]
        assert asked.token_ids == made.encode(request(messages=[system(chunks), user()])).token_ids
        assert asked.token_ids != made.encode(request(messages=[user()])).token_ids

    def test_the_user_s_own_system_message_follows(self, tmp_path: Path) -> None:
        made = self.encoder(tmp_path, "v13", "Think.")
        asked = made.encode(request(messages=[system("Be brief."), user()], prompt_mode="reasoning"))
        expected = made.encode(request(messages=[system("Think."), system("Be brief."), user()]))
        assert asked.token_ids == expected.token_ids

    @pytest.mark.parametrize(("version", "prompt"), [("v13", None), ("v13", ""), ("v11", "Think.")])
    def test_without_it_the_mode_is_refused(self, tmp_path: Path, version: str, prompt: str | None) -> None:
        with pytest.raises(FeatureNotEnabled, match="prompt_mode is not enabled for this model") as refused:
            self.encoder(tmp_path, version, prompt).encode(
                request(messages=[user()], prompt_mode="reasoning")
            )
        assert refused.value.param == "prompt_mode"


class TestDamagedFiles:
    def test_not_a_tokenizer(self, tmp_path: Path) -> None:
        for name, content in (("tekken.json", "{"), ("tekken.json", "{}"), ("tokenizer.model.v3", "x")):
            (tmp_path / name).write_text(content)
            with pytest.raises(UnsupportedTokenizer, match=r"is not usable: "):
                MistralEncoder.from_file(tmp_path / name)

    def test_a_version_that_is_not_known(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedTokenizer, match="Unknown version: v99"):
            MistralEncoder.from_file(write_tekken(tmp_path / "tekken.json", "v99"))

    @pytest.mark.parametrize(
        ("own", "name", "missing"),
        [("v7", "v11", "ARGS"), ("v3", "v7", "BEGIN_SYSTEM"), ("v3", "v3m1", "img_break")],
    )
    def test_a_sentencepiece_model_under_another_version_s_name(
        self, tmp_path: Path, own: str, name: str, missing: str
    ) -> None:
        """Its prompts would be full of `<unk>`."""
        file = tmp_path / f"tokenizer.model.{name}"
        file.write_bytes(tokenizer_file(f"sentencepiece-{own}").read_bytes())
        version = name.removesuffix("m1")
        with pytest.raises(
            UnsupportedTokenizer, match=f"has no token {missing}, which prompts of {version} need"
        ):
            MistralEncoder.from_file(file)

    def test_settings_are_missing(self, tmp_path: Path) -> None:
        file = write_tekken(tmp_path / "tekken.json", "v15", model_settings_builder=None)
        with pytest.raises(UnsupportedTokenizer, match="no model_settings_builder"):
            MistralEncoder.from_file(file)
