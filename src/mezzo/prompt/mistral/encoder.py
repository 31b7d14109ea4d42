"""Prompts of Mistral's own checkpoints, token for token as mistral_common makes them.

Its tokenizer, its normaliser and its validator in serving mode do the work. Its image encoder does not: it would fetch
URLs and read files that a request names. Images come decoded and resized, as attachments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.protocol.instruct.chunk import ImageChunk, ImageURLChunk
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, ImageEncoding, SpecialImageIDs
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mezzo.prompt.answer_grammar import AnswerFormat, AnswerGrammar
from mezzo.prompt.content import ContentPart, ThinkingPart
from mezzo.prompt.encoder import EncodedPrompt
from mezzo.prompt.features import check_reasoning_effort
from mezzo.prompt.image_tokens import ImageTokens
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import ImageProcessor, PreparedImage
from mezzo.prompt.mistral.call_readers import ARGS, CALL_ID, TOOL_CALLS
from mezzo.prompt.mistral.errors import translated
from mezzo.prompt.mistral.messages import Format, PreparedChunk, Translation
from mezzo.prompt.mistral.output import END_THINK, THINK, Markers, make_parser
from mezzo.prompt.mistral.vocabulary import check_special_tokens, find_special_token, token_bytes
from mezzo.prompt.output import OutputParser
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments, ImagePart, TextPart
from mezzo.prompt.tokenizer import UnsupportedTokenizer
from mezzo.protocol.chat import ChatCompletionRequest

REASONING_PROMPT = "SYSTEM_PROMPT.txt"
"""The file beside a tokenizer in which Mistral publishes the system prompt of its reasoning models."""


class MistralEncoder:
    """A tokenizer of mistral_common and the prompt format of its version: a PromptEncoder.

    eos_token_ids   ids at which the model ends its answer
    """

    def __init__(
        self,
        tokenizer: MistralTokenizer[Any, Any, Any, Any, Any],
        image_processor: ImageProcessor | None,
        reasoning_prompt: str = "",
    ) -> None:
        """Make one.

        image_processor    stands in for the tokenizer's own; both or none read images
        reasoning_prompt   the system prompt that makes the model reason, with `[THINK]` and `[/THINK]` spelled
        """
        self._mistral = tokenizer
        self._instruct = cast(Any, tokenizer.instruct_tokenizer)
        self._tokenizer: Tekkenizer | SentencePieceTokenizer = self._instruct.tokenizer
        self.image_processor = image_processor
        self._image_tokens: ImageTokens | None = None
        if (own := self._instruct.image_encoder) is not None:
            ids = own.special_ids
            self._image_tokens = ImageTokens(ids.img, row_break=ids.img_break, end=ids.img_end)
            self._instruct.image_encoder = _PreparedImages(own.image_config, ids, self._image_tokens)
        self.eos_token_ids = frozenset({int(self._tokenizer.eos_id)})
        self._markers = _markers(self._tokenizer, self.version)
        self._answer_format = _answer_format(self._markers)
        self._format = Format(
            in_role=self._parts_in_role(),
            prepare=self._prepare,
            reasoning_prompt=_parts_of_prompt(reasoning_prompt) if self._has_thinking else (),
            shows_response_format=self._has_setting("json_schema"),
        )

    @classmethod
    def from_file(cls, path: Path, *, image_limits: ImageLimits | None = None) -> MistralEncoder:
        """Read `tekken.json` or a SentencePiece model whose name tells its version.

        Raises: UnsupportedTokenizer saying what is wrong.
        """
        try:
            tokenizer: MistralTokenizer[Any, Any, Any, Any, Any] = MistralTokenizer.from_file(
                str(path), mode=ValidationMode.serving
            )
        except Exception as error:  # a foreign reader on a foreign file: asserts, KeyErrors and its own
            raise UnsupportedTokenizer(
                f"{path} is not usable: {getattr(error, 'message', None) or error}"
            ) from error
        check_special_tokens(tokenizer, path)
        config = getattr(tokenizer.instruct_tokenizer.image_encoder, "image_config", None)
        prompt = path.with_name(REASONING_PROMPT)
        return cls(
            tokenizer,
            None if config is None else _image_processor(config, image_limits),
            prompt.read_text(encoding="utf-8") if prompt.is_file() else "",
        )

    @property
    def version(self) -> TokenizerVersion:
        """The version of the prompt format."""
        return self._mistral.version

    @property
    def image_token_id(self) -> int | None:
        """The token that stands for a merged patch."""
        return None if self._image_tokens is None else self._image_tokens.image

    @property
    def marker_token_ids(self) -> frozenset[int]:
        """The ids of `[TOOL_CALLS]` and such, as far as this version gives them a meaning in answers."""
        return frozenset(self._markers.names)

    @property
    def capabilities(self) -> frozenset[str]:
        """`vision` with an image format, the others with their tokens: calls and gaps have theirs from v2 on."""
        found = set()
        if self.image_processor is not None:
            found.add("vision")
        if self.version >= TokenizerVersion.v2:
            found |= {"function_calling", "completion_fim"}
        if self._has_thinking:
            found.add("reasoning")
        return frozenset(found)

    @property
    def reasoning_efforts(self) -> tuple[str, ...]:
        """The values of `reasoning_effort` that the tokenizer's model settings list."""
        settings = self._tokenizer.model_settings_builder
        if settings is None or settings.reasoning_effort is None:
            return ()
        return tuple(str(value) for value in settings.reasoning_effort.values)

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of every id, empty for control tokens."""
        return token_bytes(self._tokenizer)

    def encode_fim(self, prompt: str, suffix: str) -> list[int]:
        """Return `[SUFFIX]`, the suffix, `[PREFIX]` and the prompt, as the reference's FIM models were trained."""
        if "completion_fim" not in self.capabilities:
            raise NotImplementedError(f"{self.version} has no tokens for a prefix and a suffix")
        tokens: list[int] = self._instruct.encode_fim(FIMRequest(prompt=prompt, suffix=suffix)).tokens
        return tokens

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of a text as the model would write it after the end of an instruction."""
        return list(self._tokenizer.encode(text, bos=False, eos=False))

    def answer_grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        """Return what the answer must be, in the form that this version's models write calls and traces in."""
        return self._answer_format.grammar(request)

    def output_parser(self, request: ChatCompletionRequest | None = None) -> OutputParser:
        """Return a parser of this version's tool calls and traces."""
        return make_parser(self._markers, request)

    def encode(
        self, request: ChatCompletionRequest, attachments: Attachments = NO_ATTACHMENTS
    ) -> EncodedPrompt:
        """Return the prompt. Expects a request whose messages and features were checked.

        Raises: DomainError for what this version's format cannot show, or an image that cannot be read.
        """
        check_reasoning_effort(request.reasoning_effort, self.reasoning_efforts)
        translation = Translation(request, self._format, attachments)
        with translated():
            encoded = self._mistral.encode_chat_completion(translation.request())
        if self._image_tokens is None:
            return EncodedPrompt(encoded.tokens)
        # In the order of the prompt: tool results are put into the order of their calls, and their images with them.
        by_pixels = {id(image.pixels): image for image in translation.images}
        images = [by_pixels[id(pixels)] for pixels in encoded.images]
        return self._image_tokens.locate(encoded.tokens, images)

    def _has_setting(self, name: str) -> bool:
        """Whether prompts show this field of the request by themselves."""
        return getattr(self._tokenizer.model_settings_builder, name, None) is not None

    @property
    def _has_thinking(self) -> bool:
        return getattr(self._instruct, "BEGIN_THINK", None) is not None

    def _parts_in_role(self) -> dict[str, frozenset[type[ContentPart]]]:
        """Return what each role's messages may hold: the rules of mistral_common's validators and encoders."""
        text: frozenset[type[ContentPart]] = frozenset({TextPart})
        images = text | {ImagePart} if self.image_processor is not None else text
        thinking = text | {ThinkingPart} if self._has_thinking else text
        is_newest = self.version >= TokenizerVersion.v15
        return {
            "system": text if is_newest else thinking,
            "user": images,
            "assistant": thinking,
            "tool": images if is_newest else text,
        }

    def _prepare(self, part: ImagePart) -> PreparedImage:
        assert self.image_processor is not None, "Format.check refused the image"
        return self.image_processor.prepare(part)


class _PreparedImages(ImageEncoder):
    """In the place of mistral_common's image encoder: returns the tokens of an image that was prepared before."""

    def __init__(self, config: ImageConfig, ids: SpecialImageIDs, tokens: ImageTokens) -> None:
        super().__init__(config, ids)
        self._tokens = tokens

    def __call__(self, content: ImageChunk | ImageURLChunk) -> ImageEncoding:
        if not isinstance(content, PreparedChunk):
            raise TypeError("an image that was not prepared must not reach the prompt")
        return ImageEncoding(tokens=self._tokens.layout(content.prepared), image=content.prepared.pixels)


def _image_processor(config: ImageConfig, limits: ImageLimits | None) -> ImageProcessor:
    return ImageProcessor(
        limits=limits or ImageLimits(),
        patch_size=config.image_patch_size,
        longest_edge=config.max_image_size,
        spatial_merge_size=config.spatial_merge_size,
        rounding="nearest",
    )


def _markers(tokenizer: Tekkenizer | SentencePieceTokenizer, version: TokenizerVersion) -> Markers:
    """Find the control tokens that this version's answers are structured by."""
    names: list[str] = []
    if version >= TokenizerVersion.v2:
        names.append("[TOOL_CALLS]")
    if version >= TokenizerVersion.v11:
        names += ["[ARGS]", "[CALL_ID]"]
    if version >= TokenizerVersion.v13:
        names += ["[THINK]", "[/THINK]"]
    found = {
        token_id: name for name in names if (token_id := find_special_token(tokenizer, name)) is not None
    }
    return Markers(
        found,
        has_named_calls=version >= TokenizerVersion.v11,
        begins_with_space=isinstance(tokenizer, SentencePieceTokenizer),
    )


def _answer_format(markers: Markers) -> AnswerFormat:
    """Return how answers are written, as grammars name the control tokens."""
    ids = {name: f"<[{token_id}]>" for token_id, name in markers.names.items()}
    return AnswerFormat(
        calls=None if TOOL_CALLS not in ids else "named" if markers.has_named_calls else "list",
        tool_calls=ids.get(TOOL_CALLS),
        args=ids.get(ARGS),
        call_id=ids.get(CALL_ID),
        think=ids.get(THINK),
        end_think=ids.get(END_THINK),
    )


def _parts_of_prompt(text: str) -> tuple[TextPart | ThinkingPart, ...]:
    """Divide a system prompt where it shows the model what a trace looks like."""
    before, opened, rest = text.partition("[THINK]")
    trace, closed, after = rest.partition("[/THINK]")
    if not (opened and closed):
        return (TextPart(text),) if text else ()
    parts = (TextPart(before), ThinkingPart(trace, is_closed=True), TextPart(after))
    return tuple(part for part in parts if part.text)
