"""Answers bound to a grammar, by a tiny random model that would never write one by itself."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import jsonschema
import numpy as np
import pytest

from mezzo.engine.config import Vocabulary
from mezzo.engine.grammar import Grammars, check_grammar
from mezzo.engine.grammar_errors import GrammarError
from mezzo.engine.messages import AddRequest
from mezzo.model.decoder import Decoder
from mezzo.prompt.json_schema import json_rule
from tests.tiny import EOS, VOCAB_SIZE, VOCABULARY, make_core, make_request, run

DIGITS = 'start: /[0-9]{3}/ "."'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "born": {"type": ["string", "null"], "format": "date"},
    },
    "required": ["kind", "legs"],
    "additionalProperties": False,
}


def schema_grammar(schema: dict[str, Any]) -> str:
    return f"start: %json {json.dumps(schema)}"


def bound(grammar: str, request_id: str = "r", begun_with: bytes = b"", **fields: Any) -> AddRequest:
    request = make_request(request_id, b"Say: " + begun_with, **fields)
    return AddRequest(
        **{name: getattr(request, name) for name in request.__struct_fields__}
        | {"grammar": grammar, "begun_with": begun_with}
    )


class TestAnswers:
    @pytest.mark.parametrize("temperature", [0, 0.7, 1.5])
    def test_an_answer_is_of_the_grammar_and_ends_with_it(self, decoder: Decoder, temperature: float) -> None:
        done = run(make_core(decoder), bound(DIGITS, temperature=temperature, seed=4, max_tokens=50))
        text = done.texts["r", 0]
        assert text[:3].isdigit()
        assert text[3:] == "."
        assert done.reasons["r", 0] == "stop"
        assert done.num_tokens["r", 0] == 4  # no end token is waited for where nothing else may come

    @pytest.mark.parametrize("seed", range(20))
    def test_every_answer_to_a_schema_validates(self, decoder: Decoder, seed: int) -> None:
        request = bound(schema_grammar(SCHEMA), temperature=1.5, seed=seed, max_tokens=200, n=3)
        done = run(make_core(decoder), request)
        assert len({*done.texts.values()}) > 1
        for choice, text in done.texts.items():
            assert done.reasons[choice] == "stop"
            jsonschema.validate(json.loads(text), SCHEMA)

    @pytest.mark.parametrize("seed", range(5))
    def test_so_does_one_to_a_schema_that_excludes(self, decoder: Decoder, seed: int) -> None:
        digit = {"type": "integer", "minimum": 0, "maximum": 9}
        schema = {
            "type": "object",
            "properties": {"side": digit, "base": digit, "height": digit, "unit": {"enum": ["m", "cm", 1]}},
            "additionalProperties": False,
            "required": ["unit"],
            "oneOf": [{"required": ["side"]}, {"required": ["base", "height"]}],
            "not": {"properties": {"unit": {"type": "integer"}}, "required": ["unit"]},
        }
        request = bound(f"start: {json_rule(schema)}", temperature=1.5, seed=seed, max_tokens=100, n=5)
        done = run(make_core(decoder), request)
        for choice, text in done.texts.items():
            assert done.reasons[choice] == "stop"
            jsonschema.validate(json.loads(text), schema)

    def test_the_limit_cuts_and_says_so(self, decoder: Decoder) -> None:
        done = run(make_core(decoder), bound(DIGITS, max_tokens=2))
        assert (done.reasons["r", 0], len(done.texts["r", 0])) == ("length", 2)

    def test_an_end_token_may_come_where_the_text_is_whole(self, decoder: Decoder) -> None:
        reasons = set()
        for seed in range(10):
            done = run(make_core(decoder), bound("start: /a+/", temperature=1.5, seed=seed, max_tokens=3))
            assert set(done.texts["r", 0]) == {"a"}
            reasons.add(done.reasons["r", 0])
        assert reasons == {"stop", "length"}

    @pytest.mark.parametrize("begun_with", [b"1", b"12", b"123"])
    def test_what_was_begun_goes_on(self, decoder: Decoder, begun_with: bytes) -> None:
        done = run(make_core(decoder), bound(DIGITS, begun_with=begun_with, max_tokens=50))
        assert len(begun_with) + len(done.texts["r", 0]) == 4
        assert done.texts["r", 0].endswith(".")

    def test_neighbours_are_not_bound_and_do_not_change(self, decoder: Decoder) -> None:
        free = make_request("free", temperature=1, seed=3, max_tokens=30)
        alone = run(make_core(decoder), free)
        lone = run(make_core(decoder), bound(DIGITS, "bound", temperature=1, seed=3))
        together = run(make_core(decoder), bound(DIGITS, "bound", temperature=1, seed=3), free)
        assert together.texts["free", 0] == alone.texts["free", 0]
        assert together.texts["bound", 0] == lone.texts["bound", 0]

    def test_preempted_and_gone_on(self, decoder: Decoder) -> None:
        """Four sequences in a cache for two: each gives its blocks back at some time, and keeps its place."""
        grammar = "start: /(ab){40}/"
        core = make_core(decoder, num_blocks=12)
        done = run(core, *(bound(grammar, f"r{i}", temperature=1, seed=i, max_tokens=100) for i in range(4)))
        assert core.scheduler.num_preemptions > 0
        assert set(done.texts.values()) == {"ab" * 40}

    def test_penalties_do_not_reach_what_is_forbidden(self, decoder: Decoder) -> None:
        done = run(make_core(decoder), bound("start: /z{15}/", frequency_penalty=2))
        assert done.texts["r", 0] == "z" * 15

    def test_control_tokens_are_taken_where_the_grammar_names_them_and_nowhere_else(
        self, decoder: Decoder
    ) -> None:
        vocabulary = Vocabulary(
            token_bytes=(*VOCABULARY.token_bytes, b""),
            eos_token_ids=frozenset({EOS}),
            marker_token_ids=frozenset({EOS + 1}),
        )
        core = make_core(decoder, vocabulary=vocabulary)
        core.add(bound(f"start: /[a-z]{{5}}/ <[{EOS + 1}]> /[x]/", temperature=1.5, seed=1))
        outputs = []
        while core.is_compiling or core.has_work:
            outputs += core.step()
        assert [output.marker for output in outputs] == [None] * 5 + [EOS + 1, None]
        assert outputs[-1].text == "x"


class TestCompiling:
    def test_a_request_waits_without_holding_up_others(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        core.add(bound(DIGITS))
        assert core.is_compiling
        assert core.stats.num_waiting == 1
        assert core.abort("r")[0].finish_reason == "abort"
        assert not core.is_compiling
        assert run(core, make_request(max_tokens=3)).num_tokens["r", 0] == 3

    def test_a_grammar_that_is_none_ends_every_choice_with_an_error(self, decoder: Decoder) -> None:
        done = run(make_core(decoder), bound("start: nothing", n=3))
        assert set(done.reasons.values()) == {"error"}
        assert len(done.reasons) == 3

    def test_one_that_becomes_too_complex_ends_with_an_error(self, decoder: Decoder) -> None:
        core = make_core(decoder)
        core.add(bound("start: /[a-c]*/", temperature=1.5, seed=0, max_tokens=100))
        outputs = []
        while core.is_compiling or core.has_work:
            outputs += core.step()
            for sequence in core.scheduler.running:
                assert sequence.grammar is not None
                sequence.grammar.take([ord("z")])  # as one that passes its limits, it stays broken
        assert [output.finish_reason for output in outputs] == [None, "error"]

    def test_it_is_compiled_once(self) -> None:
        grammars = Grammars(VOCABULARY, VOCAB_SIZE)
        first = grammars.begin(DIGITS)
        first.result()
        assert grammars.begin(DIGITS).done()
        assert not grammars.begin(DIGITS + " /x/").done()

    def test_masks_are_those_of_the_head(self) -> None:
        grammars = Grammars(VOCABULARY, VOCAB_SIZE)
        state = grammars.begin("start: /[bc]?/").result()
        ((mask,),) = grammars.start_masks([(state, ())]).result()
        assert mask.shape == (VOCAB_SIZE,)
        assert list(np.flatnonzero(mask)) == [ord("b"), ord("c"), EOS]
        sibling = state.copy()
        state.take([ord("b")])
        assert state.is_complete
        assert not sibling.is_complete

    def test_masks_of_a_draft_are_those_behind_its_tokens(self) -> None:
        grammars = Grammars(VOCABULARY, VOCAB_SIZE)
        state = grammars.begin('start: "a" /[bc]/ "d"').result()
        assert state.num_valid(b"abx") == 2
        (masks,) = grammars.start_masks([(state, b"ab")]).result()
        assert [list(np.flatnonzero(mask)) for mask in masks] == [
            [ord("a")],
            [ord("b"), ord("c")],
            [ord("d")],
        ]
        assert list(np.flatnonzero(state.mask(VOCAB_SIZE))) == [ord("a")]  # where it was

    def test_what_can_be_said_in_one_way_only_may_be_cut_in_any(self) -> None:
        """Tokens of a model are not to be told how their own text is split."""
        words = Vocabulary(token_bytes=(b"a", b"b", b"ab", b""), eos_token_ids=frozenset({3}))
        mask = Grammars(words, 4).begin('start: "ab"').result().mask(4)
        assert list(np.flatnonzero(mask)) == [0, 2]


HOSTILE = {
    "many patterns": {
        "properties": {f"k{i}": {"type": "string", "pattern": "^(a|b)*c{1,30}$"} for i in range(3000)}
    },
    "many long constants": {"anyOf": [{"const": str(i) * 100} for i in range(5000)]},
    "nested repeats": {"type": "string", "pattern": "^((((a{1,50}){1,50}){1,50}){1,50})$"},
    "many items": {"type": "array", "minItems": 10**6, "items": {"type": "string", "pattern": "(a|aa)+b"}},
    "a long string": {"type": "string", "minLength": 10**6, "maxLength": 10**9},
    "many alternatives": {"type": "string", "pattern": "|".join(f"(x{i}.*y)" for i in range(2000))},
}


class TestChecking:
    @pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE.keys())
    def test_hostile_grammars_cost_little(self, schema: dict[str, Any]) -> None:
        """Those that pass must be cheap to go on with too: the first mask is the expensive one."""
        before = time.process_time()
        with suppress(GrammarError):
            check_grammar(schema_grammar(schema))
            Grammars(VOCABULARY, VOCAB_SIZE).begin(schema_grammar(schema)).result()
        assert time.process_time() - before < 5

    @pytest.mark.parametrize(
        "grammar",
        ["", "start: (", schema_grammar({"not": {}}), schema_grammar({"$ref": "#/nowhere"})],
    )
    def test_what_is_no_grammar_is_refused(self, grammar: str) -> None:
        with pytest.raises(GrammarError):
            check_grammar(grammar)

    def test_a_beginning_must_fit(self) -> None:
        check_grammar(DIGITS, b"12")
        with pytest.raises(GrammarError, match="what the answer begins with does not fit"):
            check_grammar(DIGITS, b"x")
