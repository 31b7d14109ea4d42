"""The system prompt that `safe_prompt: true` puts before a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from mezzo.protocol.messages import Message, SystemMessage

SAFETY_PROMPT = (
    "Help safely and honestly. Decline, in one friendly sentence, whatever would hurt or demean people or "
    "break the law, and answer everything else in full. Treat everyone fairly. Say so when you are unsure."
)


def with_safety_prompt(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with the safety prompt as its first system message."""
    return [SystemMessage(role="system", content=SAFETY_PROMPT), *messages]
