"""From a chat request to the token ids of its prompt, for one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mezzo.prompt.normalize import conversation
from mezzo.prompt.template import ChatTemplate, TemplateRefusal
from mezzo.prompt.tokenizer import TextTokenizer, UnsupportedTokenizer, read_json
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import InvalidArguments
from mezzo.protocol.messages import AssistantMessage


class PromptEncoder:
    """The tokenizer and chat template of a checkpoint.

    eos_token_ids   ids at which the model ends its answer
    """

    def __init__(
        self, tokenizer: TextTokenizer, template: ChatTemplate, eos_token_ids: frozenset[int]
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.eos_token_ids = eos_token_ids

    @classmethod
    def from_folder(cls, folder: Path) -> PromptEncoder:
        """Read a checkpoint folder. Raises: UnsupportedTokenizer saying what is missing or not supported."""
        tokenizer = TextTokenizer.from_folder(folder)
        return cls(tokenizer, ChatTemplate.from_folder(folder, tokenizer), _eos_token_ids(folder))

    def encode(self, request: ChatCompletionRequest) -> list[int]:
        """Return the prompt's token ids. Expects a request whose messages and features were checked.

        Raises: InvalidArguments if the checkpoint's template cannot show the conversation, or arguments of a call are
        nested too deeply to be walked.
        """
        last = request.messages[-1]
        try:
            messages = conversation(
                request.messages,
                safe_prompt=request.safe_prompt,
                renders_tool_calls=self.template.renders_tool_calls,
            )
            return self.template.encode(
                messages, continues_last=isinstance(last, AssistantMessage) and last.prefix
            )
        except TemplateRefusal as error:
            raise InvalidArguments(
                f"The chat template of this model does not accept the messages: {str(error)[:200]}",
                param="messages",
            ) from error
        except RecursionError:
            raise InvalidArguments(
                "The arguments of a tool call are nested too deeply", param="messages"
            ) from None


def _eos_token_ids(folder: Path) -> frozenset[int]:
    """Read the ids from `generation_config.json`, else `config.json`."""
    for name in ("generation_config.json", "config.json"):
        if (path := folder / name).is_file():
            ids: Any = read_json(path).get("eos_token_id")
            if ids is not None:
                return frozenset(ids if isinstance(ids, list) else [ids])
    raise UnsupportedTokenizer(f"{folder} does not say which token ends an answer (eos_token_id)")
