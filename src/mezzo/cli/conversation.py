"""What is said in one `mezzo chat` session, and what the next request therefore holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mezzo.cli.pictures import Picture


@dataclass(frozen=True)
class Question:
    """What a person says in one turn: text, and the pictures that were attached to it."""

    text: str
    pictures: tuple[Picture, ...] = ()

    def message(self) -> dict[str, Any]:
        """Return the user message in the API's form. Pictures come first: the text is about them."""
        content: str | list[dict[str, str]] = self.text
        if self.pictures:
            chunks = [picture.chunk() for picture in self.pictures]
            content = [*chunks, {"type": "text", "text": self.text}]
        return {"role": "user", "content": content}


@dataclass
class Exchange:
    """A question and its answer, whole or as far as it came."""

    question: Question
    answer: str
    is_stopped: bool = False


@dataclass
class Conversation:
    """The exchanges so far, what frames them, and the tokens they used.

    temperature and max_tokens are left to the server where they are None.
    attached: pictures for the next question
    """

    model: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    attached: list[Picture] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0

    def next_question(self, text: str) -> Question:
        """Make the question of this text and the attached pictures, which are then attached no more."""
        question = Question(text, tuple(self.attached))
        self.attached.clear()
        return question

    def request(self, question: Question) -> dict[str, Any]:
        """Return the request that asks `question` after everything said before."""
        messages = [*self.messages(), question.message()]
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        return {"model": self.model, "messages": messages, **given}

    def messages(self) -> Sequence[dict[str, Any]]:
        """Return what was said in the API's form; an answer that was stopped as far as it came."""
        said: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges:
            said.append(exchange.question.message())
            said.append({"role": "assistant", "content": exchange.answer})
        return said

    def save(self, path: Path) -> None:
        """Write the conversation to a new file: the API's messages if it ends in .json, else Markdown.

        Raises: OSError, FileExistsError among them: a file that is there is not overwritten.
        """
        with path.open("x", encoding="utf-8") as file:
            if path.suffix == ".json":
                file.write(json.dumps(self.messages(), indent=2, ensure_ascii=False) + "\n")
            else:
                file.write(self._markdown())

    def _markdown(self) -> str:
        parts = [f"# Conversation with {self.model}"]
        if self.system:
            parts.append(f"**System:** {self.system}")
        for exchange in self.exchanges:
            names = "".join(f"*({picture.name})* " for picture in exchange.question.pictures)
            parts.append(f"**You:** {names}{exchange.question.text}")
            parts.append(
                f"**{self.model}:** {exchange.answer}{' *(stopped)*' if exchange.is_stopped else ''}"
            )
        return "\n\n".join(parts) + "\n"
