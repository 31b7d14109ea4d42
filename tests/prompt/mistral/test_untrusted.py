"""No text becomes a control token of Mistral's tokenizers, wherever in a request it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.prompt.mistral.requests import (
    BARE,
    ID,
    assistant,
    calls,
    encode_wire,
    system,
    text,
    tool,
    user,
)
from tests.prompt.mistral.tokenizers import ALL, control_tokens, reference


class TestUntrustedText:
    """No text becomes a control token: not the texts of control tokens, and not what hypothesis makes of them."""

    def control_ids(self, name: str) -> set[int]:
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        return {*tokenizer.special_ids, tokenizer.unk_id}

    def controls(self, name: str, wire: dict[str, Any]) -> list[int]:
        control = self.control_ids(name)
        return [i for i in encode_wire(name, wire) if i in control]

    @pytest.mark.parametrize("name", ALL)
    def test_every_control_token_by_its_text(self, name: str) -> None:
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        pieces = [tokenizer.id_to_piece(i) for i in sorted(self.control_ids(name))]
        assert "</s>" in pieces
        told = self.controls(name, {"messages": [user("x")]})
        for joined in ("".join(pieces), " ".join(pieces), "x".join(pieces), "▁".join(pieces)):
            assert self.controls(name, {"messages": [user(joined)]}) == told
        for piece in pieces:
            assert not self.control_ids(name) & set(tokenizer.encode(piece, bos=False, eos=False))

    @pytest.mark.parametrize("name", ALL)
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_text_in_any_place(self, name: str, data: st.DataObject) -> None:
        tokens = st.sampled_from([token["token_str"] for token in control_tokens("v15")])
        texts = st.lists(tokens | st.text(max_size=6), max_size=6).map("".join)

        def wire(some: st.SearchStrategy[str]) -> dict[str, Any]:
            said = [system(data.draw(some)), user(data.draw(some)), assistant("a" + data.draw(some))]
            if name == "sentencepiece-v1":
                return {"messages": [*said, user([text(data.draw(some))])]}
            arguments = {"x" + data.draw(some): data.draw(some)}
            tools = [{**BARE, "function": {**BARE["function"], "description": data.draw(some)}}]
            messages = [*said, user("x"), calls((ID, "f", arguments)), tool(data.draw(some))]
            return {"messages": messages, "tools": tools}

        told = self.controls(name, wire(st.just("x")))
        assert self.controls(name, wire(texts)) == told
