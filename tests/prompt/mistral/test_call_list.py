"""Calls as one JSON list: a call as soon as its name is known, its arguments as they come."""

from __future__ import annotations

import pytest

from mezzo.prompt.mistral.output import make_parser
from mezzo.prompt.output import (
    TextPiece,
    ToolCallArguments,
)
from mezzo.protocol.response import FinishReason
from tests.prompt.mistral.outputs import (
    LISTS,
    call,
    numbered,
    parse,
)


class TestListedCalls:
    def test_calls(self) -> None:
        output = (
            'a<TOOL_CALLS> [{"name": "f", "arguments": {"x":  [1, "]}"]}}, {"name": "g", "arguments": {}}]'
        )
        assert parse(LISTS, output) == (
            [TextPiece("a"), *call(0, "f", '{"x":  [1, "]}"]}'), *call(1, "g", "{}")],
            "tool_calls",
        )

    def test_it_is_passed_on_as_it_comes(self) -> None:
        parser = make_parser(LISTS, new_id=numbered())
        assert parser.feed("", 1) == []
        assert parser.feed('[{"name": "fo') == []
        assert parser.feed('o", "arg') == call(0, "foo")
        assert parser.feed('uments": {"x"') == [ToolCallArguments(0, '{"x"')]
        assert parser.feed(': 1}, "id": "abcDEF123"}') == [ToolCallArguments(0, ": 1}")]
        assert parser.finish("stop") == ([], "tool_calls")

    def test_an_id_before_the_name_is_kept(self) -> None:
        output = '<TOOL_CALLS>[{"id": "abcDEF123", "name": "f", "arguments": {}}]'
        assert parse(LISTS, output) == (call(0, "f", "{}", "abcDEF123"), "tool_calls")

    def test_arguments_before_the_name(self) -> None:
        output = '<TOOL_CALLS>[{"arguments": {"x": 1}, "name": "f"}]'
        assert parse(LISTS, output) == (call(0, "f", '{"x": 1}'), "tool_calls")

    def test_members_that_are_not_known_are_passed_over(self) -> None:
        output = '<TOOL_CALLS>[{"type": "function", "name": "f", "n": -1.5e3, "arguments": {}, "x": [{}]}]'
        assert parse(LISTS, output) == (call(0, "f", "{}"), "tool_calls")

    def test_the_only_object_is_the_arguments_whatever_it_is_called(self) -> None:
        output = '<TOOL_CALLS>[{"name": "f", "parameters": {"x": 1}}, {"name": "g", "a": {}, "b": {}}]'
        assert parse(LISTS, output) == ([*call(0, "f", '{"x": 1}'), *call(1, "g", "{}")], "tool_calls")

    @pytest.mark.parametrize(
        "output",
        ["[{", '[{"name": "f"', '[{"name": "f", "arguments": {"x"', '[{"name": "f", "arguments": {}},'],
    )
    def test_a_stop_string_amid_the_list_leaves_no_call(self, output: str) -> None:
        parser = make_parser(LISTS, new_id=numbered())
        pieces = [*parser.feed("So. "), *parser.feed("", 1), *parser.feed(output)]
        rest, reason = parser.finish("stop", is_stopped=True)
        assert reason == "stop"
        assert [piece for piece in [*pieces, *rest] if isinstance(piece, TextPiece)] == [TextPiece("So. ")]

    def test_a_stop_string_after_the_list_keeps_its_calls(self) -> None:
        parser = make_parser(LISTS, new_id=numbered())
        pieces = [*parser.feed("", 1), *parser.feed('[{"name": "f", "arguments": {}}] And')]
        assert parser.finish("stop", is_stopped=True) == ([], "tool_calls")
        assert pieces == [*call(0, "f", "{}"), TextPiece(" And")]

    def test_no_arguments_are_an_empty_object(self) -> None:
        assert parse(LISTS, '<TOOL_CALLS>[{"name": "f"}]') == (call(0, "f", "{}"), "tool_calls")
        assert parse(LISTS, '<TOOL_CALLS>[{"name": "f"') == (call(0, "f", "{}"), "tool_calls")

    def test_a_string_holds_arguments_that_are_no_json(self) -> None:
        output = '<TOOL_CALLS>[{"name": "f", "arguments": "{x: \\"1"}]'
        assert parse(LISTS, output) == (call(0, "f", '{x: "1'), "tool_calls")

    def test_a_list_that_does_not_end(self) -> None:
        output = '<TOOL_CALLS>[{"name": "f", "arguments": {}},'
        assert parse(LISTS, output) == (call(0, "f", "{}"), "tool_calls")

    def test_two_lists(self) -> None:
        output = '<TOOL_CALLS>[{"name": "f", "arguments": {}}]<TOOL_CALLS>[{"name": "g", "arguments": {}}]'
        assert parse(LISTS, output) == ([*call(0, "f", "{}"), *call(1, "g", "{}")], "tool_calls")

    @pytest.mark.parametrize(
        "output",
        [
            "",
            " ",
            "[]",
            "[{",
            "[{}]",
            "sorry",
            "[1]",
            '[{"name": 1}]',
            '[{"name": "no name", "arguments": {}}]',
            '[{"arguments": {"x": 1}}] and more ',
            '[{"name" "f"}]',
            '[{name: "f"}]',
            '[{"na\\x": 1, 2',
        ],
    )
    def test_what_is_no_call_is_shown_as_text(self, output: str) -> None:
        assert parse(LISTS, f"<TOOL_CALLS>{output}") == ([TextPiece(f"[TOOL_CALLS]{output}")], "stop")

    def test_what_follows_a_call_is_shown_as_text(self) -> None:
        assert parse(LISTS, '<TOOL_CALLS>[{"name": "f", "arguments": {}}] so it is \n') == (
            [*call(0, "f", "{}"), TextPiece(" so it is")],
            "tool_calls",
        )
        assert parse(LISTS, '<TOOL_CALLS>[{"name": "f", "arguments": {}}, oops]') == (
            [*call(0, "f", "{}"), TextPiece(", oops]")],
            "tool_calls",
        )
        assert parse(LISTS, '<TOOL_CALLS>[{"name": "f", "arguments": {} oops}]') == (
            [*call(0, "f", "{}"), TextPiece("oops}]")],
            "tool_calls",
        )

    @pytest.mark.parametrize("reason", ["length", "model_length", "error"])
    def test_a_call_that_was_cut(self, reason: FinishReason) -> None:
        assert parse(LISTS, 'a<TOOL_CALLS>[{"na', reason) == ([TextPiece("a")], reason)
        output = '<TOOL_CALLS>[{"name": "f", "arguments": {"x'
        assert parse(LISTS, output, reason) == (call(0, "f", '{"x'), reason)
