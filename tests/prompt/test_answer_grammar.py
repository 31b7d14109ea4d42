"""What answers may be, checked by grammars compiled for a vocabulary of bytes and a few control tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mezzo.engine.config import Vocabulary
from mezzo.engine.grammar import Grammars, check_grammar
from mezzo.prompt.answer_grammar import AnswerFormat, AnswerGrammar
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import InvalidArguments

EOS, NUM_CONTROL = 2, 13
VOCAB_SIZE = NUM_CONTROL + 256
NAMED = AnswerFormat("named", tool_calls="<[9]>", args="<[10]>", think="<[11]>", end_think="<[12]>")
LIST = AnswerFormat("list", tool_calls="<[9]>")
TAGGED = AnswerFormat("tagged")
FORMATS = {"named": NAMED, "list": LIST, "tagged": TAGGED}
CALL = {
    "named": "<[9]>get<[10]>{}",
    "list": '<[9]>[{{"name": "get", "arguments": {}}}]',
    "tagged": '<tool_call>[{{"name": "get", "arguments": {}}}]</tool_call>',
}
SKU: dict[str, Any] = {
    "type": "object",
    "properties": {"sku": {"type": "string"}},
    "required": ["sku"],
    "additionalProperties": False,
}
GET = {"type": "function", "function": {"name": "get", "parameters": SKU}}
PUT = {"type": "function", "function": {"name": "put-it", "parameters": {"type": "object"}}}
GRAMMARS = Grammars(
    Vocabulary(
        token_bytes=(*[b""] * NUM_CONTROL, *(bytes([i]) for i in range(256))),
        eos_token_ids=frozenset({EOS}),
    ),
    VOCAB_SIZE,
)


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    )


def tokens(text: str) -> list[int]:
    parts = re.split(r"<\[(\d+)\]>", text)
    return [
        token
        for number, part in enumerate(parts)
        for token in ([int(part)] if number % 2 else [byte + NUM_CONTROL for byte in part.encode()])
    ]


def takes(grammar: AnswerGrammar | None, text: str, *, fallback: bool = False) -> bool:
    """Whether `text` is a whole answer."""
    assert grammar is not None
    source = grammar.fallback if fallback else grammar.text
    assert source is not None
    state = GRAMMARS.begin(source, grammar.begun_with.encode()).result()
    for token in tokens(text):
        mask = state.mask(VOCAB_SIZE)
        if not mask[token]:
            return False
        state.take([token])
    mask = state.mask(VOCAB_SIZE)
    return state.is_complete or bool(mask[EOS])


@pytest.mark.parametrize("form", [NAMED, LIST, TAGGED, AnswerFormat()])
def test_an_answer_that_may_be_anything_has_no_grammar(form: AnswerFormat) -> None:
    assert form.grammar(request()) is None
    assert form.grammar(request(tools=[GET], tool_choice="none")) is None


class TestJson:
    @pytest.mark.parametrize(
        ("answer", "fits"),
        [
            ('{"a": [1, 2.5e3, null, true], "b": {}, "": "é\\n"}', True),
            ("{}", True),
            ("\n{}", True),
            ('{"a": 1} ', False),
            ("[1]", False),
            ('"a"', False),
            ('{"a":1}', False),  # one way to write it
            ('{"a": 01}', False),
            ("{\"a\": '1'}", False),
        ],
    )
    def test_an_object(self, answer: str, fits: bool) -> None:
        assert takes(TAGGED.grammar(request(response_format={"type": "json_object"})), answer) is fits

    @pytest.mark.parametrize(
        ("answer", "fits"),
        [('{"sku": "A1"}', True), ("{}", False), ('{"sku": 1}', False), ('{"a": ""}', False)],
    )
    def test_a_schema(self, answer: str, fits: bool) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": SKU}}
        grammar = TAGGED.grammar(request(response_format=schema))
        assert takes(grammar, answer) is fits
        assert grammar is not None
        assert (grammar.param, grammar.fallback) == ("response_format", None)

    def test_a_trace_may_come_before_it(self) -> None:
        grammar = NAMED.grammar(request(response_format={"type": "json_object"}))
        assert takes(grammar, "<[11]>hm, {<[12]>{}")
        assert takes(grammar, "{}")
        assert not takes(grammar, "hm {}")

    @pytest.mark.parametrize(
        "content", ['{"sku": "', [{"type": "text", "text": '{"sku"'}, {"type": "text", "text": ': "'}]]
    )
    def test_it_goes_on_from_a_prefix(self, content: Any) -> None:
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": content, "prefix": True},
        ]
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": SKU}}
        grammar = TAGGED.grammar(request(messages=messages, response_format=schema))
        assert takes(grammar, 'A1"}')
        assert not takes(grammar, '{"sku": "A1"}"}')

    def test_a_prefix_of_other_content_is_refused(self) -> None:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [thinking], "prefix": True},
        ]
        with pytest.raises(InvalidArguments) as refused:
            NAMED.grammar(request(messages=messages, response_format={"type": "json_object"}))
        assert refused.value.param == "response_format"

    def test_it_may_be_a_call_instead_where_there_are_tools(self) -> None:
        grammar = NAMED.grammar(request(tools=[GET], response_format={"type": "json_object"}))
        assert takes(grammar, '{"z": 1}')
        assert takes(grammar, '<[9]>get<[10]>{"sku": "A1"}')
        assert not takes(grammar, "Hello")


@pytest.mark.parametrize("name", FORMATS)
class TestCalls:
    def grammar(self, name: str, choice: Any = "auto", **fields: Any) -> AnswerGrammar | None:
        return FORMATS[name].grammar(request(tools=[GET, PUT], tool_choice=choice, **fields))

    def call(self, name: str, arguments: str = '{"sku": "A1"}') -> str:
        return CALL[name].format(arguments)

    def test_the_model_decides(self, name: str) -> None:
        grammar = self.grammar(name)
        assert takes(grammar, self.call(name))
        assert takes(grammar, "Hello, you. 1 < 2 <tool")
        assert takes(grammar, "I look. " + self.call(name))
        assert takes(grammar, self.call(name, "{}").replace("get", "put-it"))
        assert not takes(grammar, self.call(name, "{}"))
        assert not takes(grammar, self.call(name, '{"sku": 1}'))
        assert not takes(grammar, self.call(name).replace("get", "got"))

    @pytest.mark.parametrize("choice", ["any", "required"])
    def test_a_call_that_must_be_made(self, name: str, choice: str) -> None:
        grammar = self.grammar(name, choice)
        assert takes(grammar, self.call(name))
        assert takes(grammar, self.call(name, "{}").replace("get", "put-it"))
        assert not takes(grammar, "Hello")
        assert not takes(grammar, "")
        assert not takes(grammar, "Hello " + self.call(name))

    def test_one_function_by_name(self, name: str) -> None:
        grammar = self.grammar(name, {"type": "function", "function": {"name": "get"}})
        assert takes(grammar, self.call(name))
        assert not takes(grammar, self.call(name, "{}").replace("get", "put-it"))

    @pytest.mark.parametrize("choice", ["auto", "any"])
    def test_several_calls_unless_they_may_not_be(self, name: str, choice: str) -> None:
        one = self.call(name)
        two = {
            "named": one + '<[9]>put-it<[10]>{"a": 1}',
            "list": one[:-1] + ', {"name": "put-it", "arguments": {"a": 1}}]',
            "tagged": one.replace("]</", ', {"name": "put-it", "arguments": {"a": 1}}]</'),
        }[name]
        assert takes(self.grammar(name, choice), two)
        single = self.grammar(name, choice, parallel_tool_calls=False)
        assert takes(single, one)
        assert not takes(single, two)

    def test_arguments_that_no_grammar_can_hold_are_any_object(self, name: str) -> None:
        odd = {"type": "function", "function": {"name": "get", "parameters": {"not": {"required": ["a"]}}}}
        grammar = FORMATS[name].grammar(request(tools=[odd], tool_choice="any"))
        assert takes(grammar, self.call(name, '{"b": 1}'), fallback=True)
        assert not takes(grammar, "Hello", fallback=True)
        strict = {"type": "function", "function": odd["function"] | {"strict": True}}  # type: ignore[operator]
        bound = FORMATS[name].grammar(request(tools=[strict], tool_choice="any"))
        assert bound is not None
        assert bound.fallback is None

    def test_names_of_functions_are_not_read_as_grammar(self, name: str) -> None:
        tools = [{"type": "function", "function": {"name": f"f-{i}_A", "parameters": {}}} for i in range(128)]
        grammar = FORMATS[name].grammar(request(tools=tools, tool_choice="any"))
        assert grammar is not None
        check_grammar(grammar.text)
        assert takes(grammar, self.call(name, "{}").replace("get", "f-127_A"))
        assert not takes(grammar, self.call(name, "{}").replace("get", "f-128_A"))
