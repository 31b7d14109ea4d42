"""Prompts of checkpoints that bring a `tokenizer.json` and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mezzo.prompt import instructions
from mezzo.prompt.answer_grammar import AnswerFormat, AnswerGrammar
from mezzo.prompt.encoder import EncodedPrompt
from mezzo.prompt.features import check_reasoning_effort
from mezzo.prompt.image_tokens import ImageTokens, WrongImageCount
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import ImageProcessor, UnsupportedImages
from mezzo.prompt.normalize import conversation
from mezzo.prompt.output import OutputParser, PlainParser
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments
from mezzo.prompt.tagged_output import TaggedParser
from mezzo.prompt.template import ChatTemplate, TemplateRefusal
from mezzo.prompt.tokenizer import TextTokenizer, UnsupportedTokenizer, read_json
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import FeatureNotEnabled, InvalidArguments

_ANSWER_FORMAT = AnswerFormat(calls="tagged")


class TemplateEncoder:
    """The tokenizer and chat template of a checkpoint: a PromptEncoder.

    eos_token_ids   ids at which the model ends its answer
    image_tokens    ids that stand for images, None for a checkpoint that reads none
    """

    marker_token_ids: frozenset[int] = frozenset()

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        eos_token_ids: frozenset[int],
        *,
        image_processor: ImageProcessor | None = None,
        image_tokens: ImageTokens | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.eos_token_ids = eos_token_ids
        self.image_processor = image_processor
        self.image_tokens = image_tokens

    @classmethod
    def from_folder(cls, folder: Path, *, image_limits: ImageLimits | None = None) -> TemplateEncoder:
        """Read a checkpoint folder. Raises: UnsupportedTokenizer saying what is missing or not supported."""
        tokenizer = TextTokenizer.from_folder(folder)
        try:
            image_processor = ImageProcessor.from_folder(folder, limits=image_limits)
        except UnsupportedImages as error:
            raise UnsupportedTokenizer(f"{folder}: {error}") from error
        return cls(
            tokenizer,
            ChatTemplate.from_folder(folder, tokenizer),
            _eos_token_ids(folder),
            image_processor=image_processor,
            image_tokens=_read_image_tokens(folder, tokenizer),
        )

    @property
    def image_token_id(self) -> int | None:
        """The token that stands for a merged patch."""
        return None if self.image_tokens is None else self.image_tokens.image

    @property
    def capabilities(self) -> frozenset[str]:
        """`vision` where the checkpoint says how images are read and which token stands for them; calls in any case."""
        has_vision = self.image_processor is not None and self.image_tokens is not None
        return frozenset({"function_calling"} | ({"vision"} if has_vision else set()))

    @property
    def reasoning_efforts(self) -> tuple[str, ...]:
        """None: templates are not told about it."""
        return ()

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of every id, empty for control tokens."""
        return self.tokenizer.token_bytes()

    def encode_fim(self, prompt: str, suffix: str) -> list[int]:
        """Raise NotImplementedError: a chat template says nothing of gaps."""
        raise NotImplementedError("a chat template has no form for a prefix and a suffix")

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of a text as the model would write it after its turn has begun."""
        return self.tokenizer.encode(text, is_beginning=False)

    def answer_grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        """Return what the answer must be: calls stand in the text, between tags."""
        return _ANSWER_FORMAT.grammar(request)

    def output_parser(self, request: ChatCompletionRequest | None = None) -> OutputParser:
        """Return a parser that takes everything for text, and calls for calls where there may be some."""
        return TaggedParser() if request is not None and request.functions else PlainParser()

    def encode(
        self, request: ChatCompletionRequest, attachments: Attachments = NO_ATTACHMENTS
    ) -> EncodedPrompt:
        """Return the prompt. Expects a request whose messages and features were checked.

        Raises: InvalidArguments if the checkpoint's template cannot show the conversation, or arguments of a call are
        nested too deeply to be walked; InvalidFile for an image that cannot be read.
        """
        check_reasoning_effort(request.reasoning_effort, self.reasoning_efforts)
        tools = instructions.tools(request)
        try:
            messages = conversation(
                request.messages,
                attachments,
                instructions=[*instructions.safety(request), *tools, *instructions.response_format(request)],
                # Calls are shown as new ones are to be written.
                renders_tool_calls=self.template.renders_tool_calls and not tools,
            )
            token_ids = self.template.encode(messages, continues_last=request.continued is not None)
        except TemplateRefusal as error:
            raise InvalidArguments(
                f"The chat template of this model does not accept the messages: {str(error)[:200]}",
                param="messages",
            ) from error
        except RecursionError:
            raise InvalidArguments(
                "The arguments of a tool call are nested too deeply", param="messages"
            ) from None
        return self._with_images(token_ids, attachments)

    def _with_images(self, token_ids: list[int], attachments: Attachments) -> EncodedPrompt:
        if self.image_processor is None or self.image_tokens is None:
            if attachments.images:
                raise FeatureNotEnabled(f"{attachments.images[0].where}: image content", param="messages")
            return EncodedPrompt(token_ids)
        images = [self.image_processor.prepare(part) for part in attachments.images]
        try:
            return self.image_tokens.expand(token_ids, images)
        except WrongImageCount as error:
            raise InvalidArguments(
                f"The chat template of this model does not show the images of the messages: {error}",
                param="messages",
            ) from error


def _eos_token_ids(folder: Path) -> frozenset[int]:
    """Read the ids from `generation_config.json`, else `config.json`."""
    for name in ("generation_config.json", "config.json"):
        if (path := folder / name).is_file():
            ids: Any = read_json(path).get("eos_token_id")
            if ids is not None:
                return frozenset(ids if isinstance(ids, list) else [ids])
    raise UnsupportedTokenizer(f"{folder} does not say which token ends an answer (eos_token_id)")


def _read_image_tokens(folder: Path, tokenizer: TextTokenizer) -> ImageTokens | None:
    """Read which tokens stand for images; None for checkpoints that read none.

    The image token is the one `config.json` names by id. Break and end are control tokens named in
    `processor_config.json`, or `[IMG_BREAK]` and `[IMG_END]` as Pixtral's processor has them; a tokenizer without
    them has images of patches only.
    """
    config = read_json(path) if (path := folder / "config.json").is_file() else {}
    image = config.get("image_token_index", config.get("image_token_id"))
    if not isinstance(image, int) or image not in tokenizer.control_tokens.values():
        return None
    names = read_json(path) if (path := folder / "processor_config.json").is_file() else {}
    control = tokenizer.control_tokens
    return ImageTokens(
        image=image,
        row_break=control.get(names.get("image_break_token", "[IMG_BREAK]")),
        end=control.get(names.get("image_end_token", "[IMG_END]")),
    )
