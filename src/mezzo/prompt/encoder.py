"""The border between requests and token ids: what every prompt encoder is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mezzo.prompt.answer_grammar import AnswerGrammar
from mezzo.prompt.media.images import ImageProcessor, PreparedImage
from mezzo.prompt.output import OutputParser
from mezzo.prompt.parts import Attachments
from mezzo.protocol.chat import ChatCompletionRequest


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image and its place in a prompt.

    The tokens from `start` on, `num_tokens` of them, are the image's: those with the checkpoint's image token id
    stand for one merged patch each, row by row; the others separate rows and end the image.
    """

    image: PreparedImage
    start: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the engine wants it."""

    token_ids: list[int]
    images: tuple[PlacedImage, ...] = ()


class PromptEncoder(Protocol):
    """Tokenizer and prompt format of one checkpoint.

    eos_token_ids      ids at which the model ends its answer
    marker_token_ids   control tokens that the engine must report for `output_parser` to work
    capabilities       the wire's capability names that the prompt format has: `vision`, `function_calling`,
                       `reasoning`, `completion_fim`
    image_processor    how the checkpoint wants its images, None for one that reads none
    image_token_id     the token that stands for a merged patch, None likewise
    reasoning_efforts  values of `reasoning_effort` that the model was trained on; empty without adjustable reasoning
    """

    @property
    def eos_token_ids(self) -> frozenset[int]: ...

    @property
    def marker_token_ids(self) -> frozenset[int]: ...

    @property
    def capabilities(self) -> frozenset[str]: ...

    @property
    def image_processor(self) -> ImageProcessor | None: ...

    @property
    def image_token_id(self) -> int | None: ...

    @property
    def reasoning_efforts(self) -> tuple[str, ...]: ...

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of every id, empty for control tokens."""

    def encode(self, request: ChatCompletionRequest, attachments: Attachments) -> EncodedPrompt:
        """Return the prompt. Expects a request whose messages and features were checked, and all its attachments.

        Blocking and, with images, slow: call it off the event loop then.
        Raises: DomainError for what this checkpoint's format cannot show.
        """

    def encode_fim(self, prompt: str, suffix: str) -> list[int]:
        """Return the prompt after which a model writes what stands between two texts.

        Raises: NotImplementedError without the capability `completion_fim`.
        """

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of an answer's text, from its beginning, or of what goes on from a prefix."""

    def answer_grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        """Return what binds the answer to a request whose features were checked; None where it may be any text.

        Raises: InvalidArguments for a schema that is none.
        """

    def output_parser(self, request: ChatCompletionRequest | None = None) -> OutputParser:
        """Return a parser for one choice's output.

        request: what is answered; its prefix, if it has one, says what the output continues.
        """
