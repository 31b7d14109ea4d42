"""A checkpoint's chat template, rendered so that nothing a user writes can become a control token.

Templates are Jinja programs that concatenate control tokens and messages into one string. Before rendering, every
control token's text inside a message is replaced by a placeholder that no tokenizer knows; what is found in the
rendered string afterwards was therefore written by the template. The string is cut at those, each becomes its id,
and the text between is encoded with the placeholders put back, as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mezzo.prompt.tokenizer import TextTokenizer, UnsupportedTokenizer

Conversation = list[dict[str, Any]]


class TemplateRefusal(Exception):
    """The checkpoint's template does not accept the conversation; the message is the template's own."""


class ChatTemplate:
    """Turns conversations into token ids."""

    def __init__(self, source: str, tokenizer: TextTokenizer, names: dict[str, str]) -> None:
        """`names`: the variables templates refer to control tokens by, `bos_token` and such.

        Raises: UnsupportedTokenizer if the template is no valid program.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise UnsupportedTokenizer(f"the chat template is not valid: {error}") from error
        self._tokenizer = tokenizer
        self._names = names
        self._control = re.compile(
            "|".join(re.escape(t) for t in sorted(tokenizer.control_tokens, key=len, reverse=True)) or "(?!)"
        )
        self.renders_tool_calls = "tool_calls" in source

    @classmethod
    def from_folder(cls, folder: Path, tokenizer: TextTokenizer) -> ChatTemplate:
        """Read `chat_template.jinja`, else the template in `tokenizer_config.json`.

        Raises: UnsupportedTokenizer if there is none.
        """
        config: dict[str, Any] = {}
        if (path := folder / "tokenizer_config.json").is_file():
            config = json.loads(path.read_text("utf-8"))
        source: Any
        if (path := folder / "chat_template.jinja").is_file():
            source = path.read_text("utf-8")
        else:
            source = config.get("chat_template")
        if isinstance(source, list):  # several, by name
            source = next((t["template"] for t in source if t["name"] == "default"), None)
        if not isinstance(source, str):
            raise UnsupportedTokenizer(
                f"{folder} has no chat template: it is not a chat model, or not a complete copy"
            )
        names = {}
        for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
            token = config.get(name)
            names[name] = token["content"] if isinstance(token, dict) else token or ""
        return cls(source, tokenizer, names)

    def encode(self, conversation: Conversation, *, continues_last: bool) -> list[int]:
        """Return the prompt's token ids.

        It ends where the assistant's answer begins, or, with `continues_last`, right after the last message's text.
        Raises: TemplateRefusal.
        """
        guard = _Guard(conversation, self._control)
        messages = guard.map(conversation)
        if continues_last:
            messages[-1]["content"] += guard.end
        try:
            rendered = self._template.render(
                messages=messages, add_generation_prompt=not continues_last, tools=None, **self._names
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise TemplateRefusal(str(error)) from error
        if continues_last:
            head, found, _ = rendered.rpartition(guard.end)
            if not found:
                raise TemplateRefusal("the template does not show the last message")
            rendered = head
        token_ids: list[int] = []
        for control, text in self._cut(rendered):
            if control is not None:
                token_ids.append(self._tokenizer.control_tokens[control])
            if text:
                token_ids += self._tokenizer.encode(guard.restore(text))
        return token_ids

    def _cut(self, rendered: str) -> Iterator[tuple[str | None, str]]:
        """Yield each control token of the template with the text that follows it; the first text has none."""
        control, start = None, 0
        for match in self._control.finditer(rendered):
            yield control, rendered[start : match.start()]
            control, start = match[0], match.end()
        yield control, rendered[start:]


class _Guard:
    """Takes control tokens out of a conversation's strings, and puts their text back after rendering.

    `mark` and `end` are characters that occur in no string of the conversation. Noncharacters are tried first;
    a conversation that holds them all gets characters of a private use plane.
    """

    def __init__(self, conversation: Conversation, control: re.Pattern[str]) -> None:
        used = set(json.dumps(conversation, ensure_ascii=False))
        unused = (chr(c) for c in (*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xFFFFE)) if chr(c) not in used)
        self.mark, self.end = next(unused), next(unused)
        self._control = control
        self._taken: list[str] = []

    def map(self, value: Any) -> Any:
        """Return a copy of `value` with every string in it guarded."""
        if isinstance(value, str):
            return self._control.sub(self._take, value)
        if isinstance(value, dict):
            return {self.map(key): self.map(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.map(item) for item in value]
        return value

    def restore(self, text: str) -> str:
        if not self._taken:
            return text
        return re.sub(f"{self.mark}(\\d+){self.mark}", lambda match: self._taken[int(match[1])], text)

    def _take(self, match: re.Match[str]) -> str:
        self._taken.append(match[0])
        return f"{self.mark}{len(self._taken) - 1}{self.mark}"


def _to_json(value: Any, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """As checkpoints' templates expect it: readable, not escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)


def _refuse(message: str) -> None:
    raise TemplateError(message)
