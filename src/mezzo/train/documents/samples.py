"""From conversations to what the decoder is trained on: token ids, where pictures are, and which tokens are answers.

A prompt is what `PromptEncoder.encode` returns for the messages before an answer, the same call that serving makes.
The answer's tokens are those that the encoder continues this prompt with, and the token that ends it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mezzo.prompt.encoder import EncodedPrompt, PromptEncoder
from mezzo.prompt.features import DOCUMENTS, check_features
from mezzo.prompt.parts import Attachments
from mezzo.prompt.validate import validate_messages
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import ApiError
from mezzo.protocol.messages import AssistantMessage, Message, ToolMessage, UserMessage
from mezzo.train.documents.files import of_first_messages
from mezzo.train.documents.lines import Conversation, InvalidLine
from mezzo.train.errors import CannotTrain


@dataclass(frozen=True)
class Sample:
    """Tokens to read, and among them tokens to learn.

    line         of the data file, from 1
    last_answer  position of the last message in it
    targets      indices of tokens that are to be predicted, each from the token before it: answers with their ends
    pictures     digests of the pictures whose tokens are in it, in their order
    """

    line: int
    last_answer: int
    token_ids: list[int]
    targets: list[int]
    pictures: tuple[bytes, ...] = ()


class SampleMaker:
    """Makes samples with a checkpoint's own prompt format."""

    def __init__(self, encoder: PromptEncoder, *, can_see: bool) -> None:
        """can_see: whether the network has eyes. Raises: CannotTrain for a format whose answers have no certain end."""
        self._encoder = encoder
        blind = frozenset() if can_see else frozenset({"vision"})
        self._capabilities = (encoder.capabilities - blind) | {"completion_chat", DOCUMENTS}
        self.end_token_id = end_of_answers(encoder)

    def samples(self, conversation: Conversation, attachments: Attachments, line: int) -> list[Sample]:
        """Return a sample for each answer of a line. Raises: InvalidLine for what serving would refuse."""
        return [self._sample(conversation.request, at, attachments, line) for at in conversation.answers]

    def prompt(self, request: ChatCompletionRequest, answer: int, attachments: Attachments) -> EncodedPrompt:
        """Return the prompt of the answer at position `answer`. Raises: ApiError, as serving does."""
        return self._encode(request, request.messages[:answer], attachments)

    def _sample(self, request: ChatCompletionRequest, at: int, attachments: Attachments, line: int) -> Sample:
        try:
            prompt = self.prompt(request, at, attachments)
            answer = self._answer(request, at, attachments, prompt.token_ids)
        except ApiError as error:
            words = error.message
            raise InvalidLine(
                words if words.startswith("messages[") else f"messages[{at}]: {words}"
            ) from error
        start = len(prompt.token_ids)
        return Sample(
            line=line,
            last_answer=at,
            token_ids=prompt.token_ids + answer,
            targets=list(range(start, start + len(answer))),
            pictures=tuple(placed.image.digest for placed in prompt.images),
        )

    def _answer(
        self, request: ChatCompletionRequest, at: int, attachments: Attachments, prompt: list[int]
    ) -> list[int]:
        message = request.messages[at]
        assert isinstance(message, AssistantMessage)
        before = request.messages[:at]
        if message.tool_calls:
            # A call cannot be a prefix; with its results behind it, it is history, which ends where they begin.
            token_ids = self._encode(request, [*before, message, *_results(message)], attachments).token_ids
            ends = [i for i, token in enumerate(token_ids) if i >= len(prompt) and token == self.end_token_id]
            end = ends[0] if ends else len(prompt)
        else:
            said = message.model_copy(update={"prefix": True})
            token_ids = self._encode(request, [*before, said], attachments).token_ids
            end = len(token_ids)
        if token_ids[: len(prompt)] != prompt or end == len(prompt):
            raise InvalidLine(
                f"messages[{at}]: this model's prompt format does not show the answer right behind its prompt, token "
                "for token; answers that begin with a line break can be the cause"
            )
        return [*token_ids[len(prompt) : end], self.end_token_id]

    def _encode(
        self, request: ChatCompletionRequest, messages: list[Message], attachments: Attachments
    ) -> EncodedPrompt:
        """Check and encode as serving does."""
        part = request.model_copy(update={"messages": messages})
        validate_messages(messages)
        check_features(part, self._capabilities)
        return self._encoder.encode(part, of_first_messages(attachments, len(messages)))


def joined(samples: list[Sample]) -> list[Sample]:
    """Join the samples of one line where one is the beginning of the next: what is the same is read once.

    Formats that move tools or the system prompt to the last question have nothing to join.
    """
    result: list[Sample] = []
    for sample in samples:
        if result and sample.token_ids[: len(result[-1].token_ids)] == result[-1].token_ids:
            result.append(replace(sample, targets=result.pop().targets + sample.targets))
        else:
            result.append(sample)
    return result


def end_of_answers(encoder: PromptEncoder) -> int:
    """Return the token that ends an answer: the one that the format puts behind answers, if it is one of several.

    Raises: CannotTrain.
    """
    question, answer = UserMessage(role="user", content="a"), AssistantMessage(role="assistant", content="b")
    said = answer.model_copy(update={"prefix": True})
    conversations: tuple[list[Message], ...] = ([question, said], [question, answer, question])
    try:
        first, second = (
            encoder.encode(ChatCompletionRequest(model="m", messages=messages), Attachments()).token_ids
            for messages in conversations
        )
    except ApiError as error:
        raise CannotTrain(f"the prompt format of these weights shows no conversation: {error}") from error
    if second[: len(first)] == first and second[len(first)] in encoder.eos_token_ids:
        return second[len(first)]
    if len(encoder.eos_token_ids) == 1:
        return next(iter(encoder.eos_token_ids))
    raise CannotTrain(
        "the prompt format of these weights does not tell which of several tokens ends an answer"
    )


def _results(message: AssistantMessage) -> list[ToolMessage]:
    return [
        ToolMessage(role="tool", content="a", tool_call_id=call.id, name=call.function.name)
        for call in message.tool_calls or ()
    ]
