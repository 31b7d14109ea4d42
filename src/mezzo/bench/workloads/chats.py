"""`chats`: conversations that begin alike, in which each turn contains all before it."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec

from mezzo.bench.client import ChatRequest, Message
from mezzo.bench.figures import Figure, failure_of
from mezzo.bench.load import Load
from mezzo.bench.prompts import chat_question, system_prompt
from mezzo.bench.workloads.base import Outcome, Session


class Chats(msgspec.Struct, frozen=True, tag="chats", tag_field="name"):
    """So many chats at a time under one system prompt of about 1,000 tokens; a turn follows the answer to the last.

    The system prompt is a new one each time: what can be reused of it is what the server found out while it worked.
    """

    name: ClassVar[str] = "chats"
    chats: int = 16
    turns: int = 4
    max_tokens: int = 64

    async def measure(self, session: Session) -> Outcome:
        load = session.loads.begin("chats", self.chats * self.turns, streams=self.chats)
        async with asyncio.TaskGroup() as group:
            for chat in range(self.chats):
                group.create_task(self._talk(session, load, chat))
        load.end()
        figures = load.figures()
        if figures.num_failed:
            return Outcome([], ["no total time of the chats: a chat whose request failed ended there"])
        return Outcome([Figure("chats, total time", "s", figures.wall_s, "lower")])

    async def _talk(self, session: Session, load: Load, chat: int) -> None:
        messages = [Message("system", system_prompt(session.seed, session.first))]
        for turn in range(self.turns):
            messages.append(Message("user", chat_question(session.seed, session.first + chat, turn)))
            sample = await load.send(session.target, ChatRequest(tuple(messages), self.max_tokens))
            if failure_of(sample) is not None:
                return
            # An answer without text is none that a chat can contain; servers refuse it.
            messages.append(Message("assistant", sample.text or "…"))

    def short(self) -> Chats:
        # Two are enough to meet a shared beginning; that many streams at a time are for `streams` to warm up.
        return msgspec.structs.replace(
            self, chats=min(2, self.chats), turns=1, max_tokens=min(16, self.max_tokens)
        )
