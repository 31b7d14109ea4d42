"""A stream's events, as far as a measurement needs them: from bytes to lines, from a line to the fields used."""

from __future__ import annotations

from typing import Any

import msgspec


class EventError(Exception):
    """An event that is not one of a chat completion."""


class EventLines:
    """Cuts a body, in whatever pieces it arrives, into the data of its events."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, body: bytes) -> list[bytes]:
        """Return the data of the events that are complete now."""
        *lines, self._pending = (self._pending + body).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


class Delta(msgspec.Struct):
    """content: a text, or parts, as models that think send; reasoning(_content): the same from other servers."""

    content: str | list[dict[str, Any]] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def has_text(self) -> bool:
        """Whether anything was generated, be it answer or thought."""
        return bool(self.content or self.reasoning or self.reasoning_content)

    @property
    def answer(self) -> str:
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class Choice(msgspec.Struct):
    delta: Delta
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class Event(msgspec.Struct):
    """`error` and `object` tell an error that is sent inside a stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    object: str = ""
    error: Any = None

    @property
    def is_error(self) -> bool:
        return self.error is not None or self.object == "error"


_decoder = msgspec.json.Decoder(Event)


def read_event(data: bytes) -> Event:
    """Raises: EventError."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise EventError(str(error)) from error
