"""What mistral_common writes into prompts for an answer is read back as that answer."""

from __future__ import annotations

from typing import Any

import pytest

from mezzo.prompt.output import (
    Piece,
    TextPiece,
    ThinkingPiece,
    ToolCallArguments,
    ToolCallBegin,
)
from mezzo.prompt.validate import is_tool_call_id
from tests.prompt.mistral.outputs import (
    Output,
    run,
)
from tests.prompt.mistral.requests import (
    ID,
    ID2,
    assistant,
    calls,
    mistral_request,
    text,
    thinking,
    tool,
    user,
)
from tests.prompt.mistral.tokenizers import encoder, reference


class TestRoundTrips:
    """What mistral_common writes for an answer, read back token by token as if a model had said it."""

    def pieces(self, name: str, answer: dict[str, Any]) -> tuple[list[Piece], str]:
        before = [user("Weather?")]
        results = [tool("4", made["id"]) for made in answer.get("tool_calls", ())]
        whole = mistral_request({"messages": [*before, answer, *(results or [user()])]}, "")
        start = len(reference(name).encode_chat_completion(mistral_request({"messages": before}, "")).tokens)
        token_ids = reference(name).encode_chat_completion(whole).tokens[start:]
        ours = encoder(name)
        table, [end] = ours.token_bytes(), ours.eos_token_ids
        output: Output = []
        held = b""
        for token_id in token_ids[: token_ids.index(end)]:
            held += table[token_id]
            if token_id in ours.marker_token_ids:
                output.append(token_id)
            elif (piece := held.decode(errors="ignore")).encode() == held:
                output.append(piece)
                held = b""
        return run(ours.output_parser(), output, "stop")

    def calls_of(self, pieces: list[Piece]) -> list[tuple[str, str, Any]]:
        made: list[tuple[str, str, str]] = []
        for piece in pieces:
            if isinstance(piece, ToolCallBegin):
                made.append((piece.id, piece.name, ""))
            elif isinstance(piece, ToolCallArguments):
                made[-1] = (*made[-1][:2], made[-1][2] + piece.text)
        return made

    @pytest.mark.parametrize(
        "name",
        [
            "sentencepiece-v3", "sentencepiece-v7", "tekken-v3", "tekken-v7", "tekken-v11", "tekken-v13", "tekken-v15",
        ],
    )  # fmt: skip
    def test_calls(self, name: str) -> None:
        said = calls((ID, "get_weather", '{"city": "Zürich 🙂", "n": [1, {}]}'), (ID2, "no", "{city: Paris"))
        pieces, reason = self.pieces(name, said)
        made = self.calls_of(pieces)
        assert [(n, a) for _, n, a in made] == [
            ("get_weather", '{"city": "Zürich 🙂", "n": [1, {}]}'),
            ("no", "{city: Paris"),
        ]
        assert all(is_tool_call_id(call_id) for call_id, _, _ in made)
        if name == "tekken-v11":  # later versions write no ids, earlier ones too late
            assert [call_id for call_id, _, _ in made] == [ID, ID2]
        assert reason == "tool_calls"
        assert not [piece for piece in pieces if isinstance(piece, TextPiece)]

    @pytest.mark.parametrize("name", ["sentencepiece-v7", "tekken-v11", "tekken-v13"])
    def test_text_and_a_call(self, name: str) -> None:
        pieces, _ = self.pieces(name, calls((ID, "f", "{}"), content="One moment."))
        assert pieces[0] == TextPiece("One moment.")
        assert [made[1:] for made in self.calls_of(pieces)] == [("f", "{}")]

    @pytest.mark.parametrize("name", ["sentencepiece-v1", "sentencepiece-v7", "tekken-v7", "tekken-v15"])
    def test_text(self, name: str) -> None:
        said = "Ça va? 你好\n\n  [TOOL_CALLS] 🙂"
        assert self.pieces(name, assistant(said)) == ([TextPiece(said)], "stop")

    @pytest.mark.parametrize("name", ["tekken-v13", "tekken-v15"])
    def test_traces(self, name: str) -> None:
        said = calls((ID, "f", "{}"), content=[thinking("hm 🙂"), text("So.")])
        pieces, _ = self.pieces(name, said)
        assert pieces[:2] == [ThinkingPiece("hm 🙂", closes=True), TextPiece("So.")]
        assert len(self.calls_of(pieces)) == 1
