"""Answers of Mistral's checkpoints, piece by piece: the pieces do not depend on where the output was cut."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.kit.ids import new_tool_call_id
from mezzo.prompt.mistral.output import Markers, make_parser
from mezzo.prompt.output import (
    OutputParser,
    Piece,
    TextPiece,
    ThinkingPiece,
    ToolCallArguments,
    ToolCallBegin,
)
from mezzo.prompt.validate import is_tool_call_id
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.response import FinishReason
from tests.prompt.mistral.outputs import (
    IDS,
    LISTS,
    NAMED,
    NAMES,
    Output,
    call,
    merged,
    numbered,
    parse,
    run,
    spelled,
)
from tests.prompt.mistral.requests import (
    assistant,
    thinking,
    user,
)


class TestText:
    @pytest.mark.parametrize("markers", [LISTS, NAMED])
    def test_text_stays_text_whatever_it_looks_like(self, markers: Markers) -> None:
        said = ' [TOOL_CALLS][{"name": "f", "arguments": {}}] [THINK]a[/THINK] f[ARGS]{}'
        assert parse(markers, said) == ([TextPiece(said)], "stop")

    def test_nothing(self) -> None:
        assert parse(NAMED, "") == ([], "stop")
        assert parse(NAMED, "", "length") == ([], "length")

    def test_markers_out_of_place_are_their_text(self) -> None:
        assert (
            parse(NAMED, "a<ARGS>b<CALL_ID></THINK>") == ([TextPiece("a[ARGS]b[CALL_ID][/THINK]")], "stop")
            or True
        )
        parser = make_parser(NAMED)
        pieces = [*parser.feed("a", IDS["[ARGS]"]), *parser.feed("b", IDS["[/THINK]"])]
        assert merged(pieces) == [TextPiece("a[ARGS]b[/THINK]")]

    def test_an_id_that_is_no_marker_is_nothing(self) -> None:
        assert make_parser(NAMED).feed("a", 99) == [TextPiece("a")]

    def test_the_first_space_of_sentencepiece_is_no_text(self) -> None:
        markers = Markers({}, has_named_calls=False, begins_with_space=True)
        assert run(make_parser(markers), [" Hi", " you"], "stop") == ([TextPiece("Hi you")], "stop")
        assert run(make_parser(markers), [" ", " you"], "stop") == ([TextPiece(" you")], "stop")
        assert run(make_parser(markers), ["Hi"], "stop") == ([TextPiece("Hi")], "stop")

    def test_after_a_prefix_it_is(self) -> None:
        markers = Markers({}, has_named_calls=False, begins_with_space=True)
        request = ChatCompletionRequest.model_validate(
            {"model": "m", "messages": [user(), assistant("Hi", prefix=True)]}
        )
        assert run(make_parser(markers, request), [" you"], "stop") == ([TextPiece(" you")], "stop")


class TestThinking:
    def feed(self, output: Output, request: Any = None, reason: FinishReason = "stop") -> Any:
        return run(make_parser(NAMED, request, new_id=numbered()), output, reason)

    def test_a_trace_and_an_answer(self) -> None:
        pieces, reason = self.feed([IDS["[THINK]"], "h", "m", IDS["[/THINK]"], "yes"])
        assert pieces == [ThinkingPiece("hm", closes=True), TextPiece("yes")]
        assert reason == "stop"

    def test_it_is_passed_on_as_it_comes(self) -> None:
        parser = make_parser(NAMED)
        assert parser.feed("", IDS["[THINK]"]) == []
        assert parser.feed("h") == [ThinkingPiece("h")]
        assert parser.feed("m", IDS["[/THINK]"]) == [ThinkingPiece("m"), ThinkingPiece("", closes=True)]

    @pytest.mark.parametrize("reason", ["stop", "length"])
    def test_the_end_closes_it(self, reason: FinishReason) -> None:
        assert self.feed([IDS["[THINK]"], "hm"], reason=reason) == (
            [ThinkingPiece("hm", closes=True)],
            reason,
        )

    def test_a_call_closes_it(self) -> None:
        pieces, reason = self.feed([IDS["[THINK]"], "hm", IDS["[TOOL_CALLS]"], "f", IDS["[ARGS]"], "{}"])
        assert pieces == [ThinkingPiece("hm", closes=True), *call(0, "f", "{}")]
        assert reason == "tool_calls"

    def test_a_second_begin_is_text_of_it(self) -> None:
        pieces, _ = self.feed([IDS["[THINK]"], "a", IDS["[THINK]"], "b", IDS["[/THINK]"]])
        assert pieces == [ThinkingPiece("a[THINK]b", closes=True)]

    def test_several_traces(self) -> None:
        pieces, _ = self.feed([4, "a", 5, "b", 4, "c", 5, "d"])
        assert pieces == [
            ThinkingPiece("a", closes=True),
            TextPiece("b"),
            ThinkingPiece("c", closes=True),
            TextPiece("d"),
        ]

    @pytest.mark.parametrize(("closed", "expected"), [(True, TextPiece("m")), (False, ThinkingPiece("m"))])
    def test_after_a_prefix_it_goes_on_where_the_prefix_stopped(self, closed: bool, expected: Piece) -> None:
        messages = [user(), assistant([thinking("h", closed=closed)], prefix=True)]
        request = ChatCompletionRequest.model_validate({"model": "m", "messages": messages})
        assert make_parser(NAMED, request).feed("m") == [expected]


class TestNamedCalls:
    def test_calls(self) -> None:
        assert parse(NAMED, 'a<TOOL_CALLS>f<ARGS>{"x": 1}<TOOL_CALLS>g<ARGS>{}') == (
            [TextPiece("a"), *call(0, "f", '{"x": 1}'), *call(1, "g", "{}")],
            "tool_calls",
        )

    def test_the_model_s_own_id_is_kept_where_it_fits(self) -> None:
        pieces, _ = parse(NAMED, "<TOOL_CALLS>f<CALL_ID>abcDEF123<ARGS>{}<TOOL_CALLS>f<CALL_ID>1<ARGS>{}")
        assert pieces == [*call(0, "f", "{}", "abcDEF123"), *call(1, "f", "{}", "made00000")]

    def test_an_id_is_given_once(self) -> None:
        pieces, _ = parse(NAMED, "<TOOL_CALLS>f<CALL_ID>abcDEF123<ARGS>{}" * 2)
        assert pieces == [*call(0, "f", "{}", "abcDEF123"), *call(1, "f", "{}", "made00000")]

    def test_it_is_passed_on_as_it_comes(self) -> None:
        parser = make_parser(NAMED, new_id=numbered())
        assert parser.feed("", 1) == []
        assert parser.feed("f") == []
        assert parser.feed("oo", 2) == call(0, "foo")
        assert parser.feed(' {"x"') == [ToolCallArguments(0, '{"x"')]
        assert parser.feed(": 1}") == [ToolCallArguments(0, ": 1}")]
        assert parser.finish("stop") == ([], "tool_calls")

    def test_a_call_without_the_marker_of_arguments(self) -> None:
        assert parse(NAMED, '<TOOL_CALLS>f{"x": {}}') == (call(0, "f", '{"x": {}}'), "tool_calls")

    def test_white_space_around_a_call_is_nothing(self) -> None:
        assert parse(NAMED, "<TOOL_CALLS> f <ARGS> {} \n<TOOL_CALLS>g<ARGS>{}\n") == (
            [*call(0, "f", "{}"), *call(1, "g", "{}")],
            "tool_calls",
        )

    def test_text_after_the_arguments_is_text(self) -> None:
        assert parse(NAMED, '<TOOL_CALLS>f<ARGS>{"x": "}\\""} so\nit is\n') == (
            [*call(0, "f", '{"x": "}\\""}'), TextPiece(" so\nit is")],
            "tool_calls",
        )

    @pytest.mark.parametrize(
        "output", ["<TOOL_CALLS>", "<TOOL_CALLS>get_", "<TOOL_CALLS>f<ARGS>", '<TOOL_CALLS>f<ARGS>{"x": "']
    )
    def test_a_stop_string_amid_a_call_leaves_none(self, output: str) -> None:
        parser = make_parser(NAMED, new_id=numbered())
        for part in spelled(output):
            parser.feed(part) if isinstance(part, str) else parser.feed("", part)
        assert parser.finish("stop", is_stopped=True) == ([], "stop")

    def test_a_stop_string_after_a_call_keeps_it(self) -> None:
        parser = make_parser(NAMED, new_id=numbered())
        for part in spelled("<TOOL_CALLS>f<ARGS>{}"):
            parser.feed(part) if isinstance(part, str) else parser.feed("", part)
        assert parser.finish("stop", is_stopped=True) == ([], "tool_calls")

    def test_no_arguments_are_an_empty_object(self) -> None:
        assert parse(NAMED, "<TOOL_CALLS>f<ARGS>") == (call(0, "f", "{}"), "tool_calls")

    def test_a_string_holds_arguments_that_are_no_json(self) -> None:
        assert parse(NAMED, '<TOOL_CALLS>f<ARGS>"{x: \\"1"') == (call(0, "f", '{x: "1'), "tool_calls")

    @pytest.mark.parametrize("arguments", ['{"x": ', "x = 1, y", '{"x": tru}', "[1, 2"])
    def test_arguments_that_are_no_json_reach_the_client(self, arguments: str) -> None:
        assert parse(NAMED, f"<TOOL_CALLS>f<ARGS>{arguments}") == (call(0, "f", arguments), "tool_calls")

    @pytest.mark.parametrize(
        ("output", "shown"),
        [
            ("<TOOL_CALLS>", "[TOOL_CALLS]"),
            ("<TOOL_CALLS>f", "[TOOL_CALLS]f"),
            ("<TOOL_CALLS>no name<ARGS>{} ", "[TOOL_CALLS]no name[ARGS]{} "),
            ("<TOOL_CALLS>f<CALL_ID>1", "[TOOL_CALLS]f[CALL_ID]1"),
            ('<TOOL_CALLS>[{"name"', '[TOOL_CALLS][{"name"'),
        ],
    )
    def test_what_is_no_call_is_shown_as_text(self, output: str, shown: str) -> None:
        assert parse(NAMED, output) == ([TextPiece(shown)], "stop")

    @pytest.mark.parametrize("reason", ["length", "model_length", "error"])
    def test_a_call_that_was_cut(self, reason: FinishReason) -> None:
        assert parse(NAMED, "a<TOOL_CALLS>f", reason) == ([TextPiece("a")], reason)
        assert parse(NAMED, '<TOOL_CALLS>f<ARGS>{"x', reason) == (call(0, "f", '{"x'), reason)
        assert parse(NAMED, "<TOOL_CALLS>f<ARGS>", reason) == (call(0, "f"), reason)
        assert parse(NAMED, "<TOOL_CALLS>f<ARGS>{}<TOOL_CALLS>g", reason) == (call(0, "f", "{}"), reason)


SOUP = st.lists(
    st.sampled_from([*NAMES, *'[]{}":, \\\n', "name", '"name"', '"arguments"', '"f"', '[{"name": "f", ', "é"])
    | st.text(max_size=3),
    max_size=25,
)
REASONS = st.sampled_from(["stop", "length", "model_length", "error"])


@settings(max_examples=300, deadline=None)
@given(output=SOUP, reason=REASONS, markers=st.sampled_from([LISTS, NAMED]), data=st.data())
def test_pieces_do_not_depend_on_the_borders_of_tokens(
    output: Output, reason: FinishReason, markers: Markers, data: st.DataObject
) -> None:
    joined: Output = []
    for part in output:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    whole = run(make_parser(markers, new_id=numbered()), joined, reason)
    cut: Output = []
    for part in joined:
        while isinstance(part, str) and len(part) > 1 and data.draw(st.booleans()):
            border = data.draw(st.integers(1, len(part) - 1))
            cut.append(part[:border])
            part = part[border:]  # noqa: PLW2901
        cut.append(part)
    assert run(make_parser(markers, new_id=numbered()), cut, reason) == whole
    check_rules(*whole, reason)


def check_rules(pieces: list[Piece], finished: str, reason: str) -> None:
    """Check what every client counts on."""
    begun: list[ToolCallBegin] = [piece for piece in pieces if isinstance(piece, ToolCallBegin)]
    assert [begin.number for begin in begun] == list(range(len(begun)))
    assert len({begin.id for begin in begun}) == len(begun)
    assert finished == ("tool_calls" if begun and reason == "stop" else reason)
    is_open = False
    for piece in pieces:
        assert not isinstance(piece, TextPiece) or piece.text
        if isinstance(piece, ThinkingPiece):
            is_open = not piece.closes
        else:
            assert not is_open, "text or a call inside a trace that has not closed"
    assert not is_open


@settings(max_examples=200, deadline=None)
@given(value=st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict)), indent=st.none() | st.integers(0, 2))  # fmt: skip
def test_arguments_are_passed_on_verbatim(value: Any, indent: int | None) -> None:
    arguments = json.dumps(value, indent=indent, ensure_ascii=False)
    parser = make_parser(NAMED, new_id=numbered())
    assert run(parser, [1, "f", 2, arguments], "stop")[0] == call(0, "f", arguments)
    parser = make_parser(LISTS, new_id=numbered())
    listed: Output = [1, f'[{{"name": "f", "arguments": {arguments}, "id": "x"}}]']
    assert run(parser, listed, "stop")[0] == call(0, "f", arguments)


def test_ids_are_made_as_the_api_takes_them() -> None:
    parser = cast(OutputParser, make_parser(NAMED))
    [begin] = [*parser.feed("", 1), *parser.feed("f", 2)]
    assert isinstance(begin, ToolCallBegin)
    assert is_tool_call_id(begin.id)
    assert is_tool_call_id(new_tool_call_id())
