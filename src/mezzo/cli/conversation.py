"""What is said in one `mezzo chat` session, and what the next request therefore holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Exchange:
    """A question and its answer, whole or as far as it came."""

    question: str
    answer: str
    is_stopped: bool = False


@dataclass
class Conversation:
    """The exchanges so far, what frames them, and the tokens they used.

    temperature and max_tokens are left to the server where they are None.
    """

    model: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0

    def request(self, question: str) -> dict[str, Any]:
        """Return the request that asks `question` after everything said before."""
        messages = [*self.messages(), {"role": "user", "content": question}]
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        return {"model": self.model, "messages": messages, **given}

    def messages(self) -> list[dict[str, str]]:
        """Return what was said in the API's form; an answer that was stopped as far as it came."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges:
            said.append({"role": "user", "content": exchange.question})
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
            parts.append(f"**You:** {exchange.question}")
            parts.append(
                f"**{self.model}:** {exchange.answer}{' *(stopped)*' if exchange.is_stopped else ''}"
            )
        return "\n\n".join(parts) + "\n"
