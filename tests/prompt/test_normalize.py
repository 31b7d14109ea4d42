"""From wire messages to what a template is given: nothing is dropped, neighbours of one role are joined."""

from __future__ import annotations

from typing import Any

import pytest

from mezzo.prompt.normalize import conversation
from mezzo.protocol.chat import ChatCompletionRequest


def normal(
    messages: list[dict[str, Any]], *, instructions: tuple[str, ...] = (), renders_tool_calls: bool = True
) -> Any:
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": messages})
    return conversation(request.messages, instructions=instructions, renders_tool_calls=renders_tool_calls)


def call(arguments: Any, name: str = "f", call_id: str = "abc123def") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_plain_conversation_stays_as_it_is() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": " u "},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": ""},
    ]
    assert normal(messages) == messages


def test_text_chunks_become_text() -> None:
    chunks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    [message] = normal([{"role": "user", "content": chunks}])
    assert "one" in message["content"]
    assert message["content"].index("one") < message["content"].index("two")


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_neighbours_of_one_role_are_joined(role: str) -> None:
    assert normal([{"role": role, "content": "a"}, {"role": role, "content": "b"}]) == [
        {"role": role, "content": "a\n\nb"}
    ]


def test_an_empty_neighbour_adds_no_separator() -> None:
    assert normal([{"role": "user", "content": c} for c in ("", "a", "")]) == [
        {"role": "user", "content": "a"}
    ]


def test_no_content_is_empty_content() -> None:
    assert normal([{"role": "user", "content": None}]) == [{"role": "user", "content": ""}]


class TestInstructions:
    def test_come_first(self) -> None:
        assert normal([{"role": "user", "content": "u"}], instructions=("a", "b")) == [
            {"role": "system", "content": "a\n\nb"},
            {"role": "user", "content": "u"},
        ]

    def test_join_a_system_message(self) -> None:
        [system, _] = normal(
            [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], instructions=("a",)
        )
        assert system == {"role": "system", "content": "a\n\ns"}


class TestToolCalls:
    @pytest.mark.parametrize(
        ("arguments", "shown"),
        [
            ('{"x": 1}', {"x": 1}),
            ({"x": 1}, {"x": 1}),
            ("not json", "not json"),
            ("", ""),
            ("[" * 5000, "[" * 5000),
        ],
    )
    def test_a_template_that_renders_them_gets_objects(self, arguments: Any, shown: Any) -> None:
        messages = [{"role": "assistant", "content": "", "tool_calls": [call(arguments)]}]
        [message] = normal(messages)
        assert message["tool_calls"] == [call(shown)]

    def test_others_get_them_as_text_after_what_was_said(self) -> None:
        messages = [
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [call('{"q": "é"}'), call({}, "g")],
            }
        ]
        [message] = normal(messages, renders_tool_calls=False)
        assert message == {
            "role": "assistant",
            "content": 'Let me look.\n<tool_call>[{"name": "f", "arguments": {"q": "é"}}, '
            '{"name": "g", "arguments": {}}]</tool_call>',
        }

    def test_a_message_with_calls_is_not_joined_where_they_are_rendered(self) -> None:
        messages = [
            {"role": "assistant", "content": "a", "tool_calls": [call({})]},
            {"role": "assistant", "content": "b"},
        ]
        assert [m["content"] for m in normal(messages)] == ["a", "b"]

    def test_results_keep_their_call_and_stay_apart(self) -> None:
        messages = [
            {"role": "tool", "content": "1", "tool_call_id": "abc123def", "name": "f"},
            {"role": "tool", "content": "2", "tool_call_id": "abc123deg", "name": "f"},
        ]
        assert normal(messages) == messages
