"""What an answer must be, as a grammar: JSON by `response_format`, calls by `tools` and `tool_choice`.

Grammars are llguidance's, Lark with `%json` for schemas (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
Only what the request asks for is bound: an answer that may be any text has no grammar at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mezzo.prompt.instructions import CALL_TAG, END_CALL_TAG
from mezzo.prompt.json_schema import ANY_OBJECT, checked_schema, has_unique_items, json_rule
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.content import TextChunk
from mezzo.protocol.errors import InvalidArguments
from mezzo.protocol.tools import FunctionDef, NamedToolChoice

_SPACE = "SPACE: /[ \\t\\r\\n]{1,8}/"  # where models put some, and never much
_TEXT = "TEXT: /(?s:.+)/"
_TEXT_WITHOUT_TAG = f"TEXT: /(?s:.+)/ & ~/(?s:.*){CALL_TAG}(?s:.*)/"
_UP_TO_TAG = f"opened[lazy]: /(?s:.*){CALL_TAG}/"
_TAG = f'opened: "{CALL_TAG}"'


@dataclass(frozen=True)
class AnswerGrammar:
    """A grammar for one request.

    text          as the engine wants it
    fallback      a looser one for a `text` that cannot be compiled, None where that is an error of the request's
    begun_with    the prefix of the request's last message, which the answer continues
    param         the field of the request that it comes from
    unique_items  the answer's JSON Schema where arrays in it must not repeat themselves, which `text` does not say
    """

    text: str
    begun_with: str
    param: Literal["response_format", "tools"]
    fallback: str | None = None
    unique_items: str | None = None


@dataclass(frozen=True)
class AnswerFormat:
    """How the answers of a checkpoint are written. Control tokens are given as `<[id]>`, None for those it has not.

    calls       `named`: [TOOL_CALLS]name[ARGS]{...} for each call, with [CALL_ID]id before [ARGS] or without;
                `list`: [TOOL_CALLS] and a JSON list of calls;
                `tagged`: the list in text, between <tool_call> and </tool_call>
    """

    calls: Literal["named", "list", "tagged"] | None = None
    tool_calls: str | None = None
    args: str | None = None
    call_id: str | None = None
    think: str | None = None
    end_think: str | None = None

    def grammar(self, request: ChatCompletionRequest) -> AnswerGrammar | None:
        """Return what binds the answer to `request`, whose features were checked; None where nothing does.

        Raises: InvalidArguments for a schema that is none, or a prefix that no grammar can go on from.
        """
        functions = _callable_functions(request)
        answer = _json_answer(request)
        if answer is None and not functions:
            return None
        prefix = _prefix(request) if answer is not None else ""
        forced = bool(functions) and request.tool_choice not in ("auto", "none")
        text = self._render(answer, functions, request, forced=forced, strictly=True)
        if answer is not None:
            unique = None if functions else _schema_with_unique_items(request)
            return AnswerGrammar(text, prefix, "response_format", unique_items=unique)
        is_strict = any(function.strict for function in functions)
        fallback = (
            None if is_strict else self._render(None, functions, request, forced=forced, strictly=False)
        )
        return AnswerGrammar(text, prefix, "tools", fallback)

    def _render(
        self,
        answer: str | None,
        functions: Sequence[FunctionDef],
        request: ChatCompletionRequest,
        *,
        forced: bool,
        strictly: bool,
    ) -> str:
        rules = [_SPACE]
        think = ""
        if self.think is not None:
            rules.append(f"think: {self.think} TEXT {self.end_think}")
            think = "think? "
        alternatives = []
        if answer is not None:
            rules.append(f"answer: SPACE? {answer}")
            alternatives.append("answer")
        if functions:
            rules += self._calls(functions, strictly=strictly, many=request.parallel_tool_calls)
            may_talk = answer is None and not forced
            if self.calls == "tagged":
                rules.append(_UP_TO_TAG if may_talk else _TAG)
                alternatives += ["opened calls", "TEXT"] if may_talk else ["opened calls"]
            else:
                alternatives += ["calls", "TEXT", "TEXT calls"] if may_talk else ["calls"]
        if think or "TEXT" in alternatives:
            rules.append(_TEXT_WITHOUT_TAG if self.calls == "tagged" else _TEXT)
        return "\n".join([f"start: {think}({' | '.join(alternatives)})", *rules])

    def _calls(self, functions: Sequence[FunctionDef], *, strictly: bool, many: bool) -> Iterable[str]:
        schemas = [checked_schema(f.parameters, "tools") if strictly else ANY_OBJECT for f in functions]
        numbered = list(enumerate(zip(functions, schemas, strict=True)))
        if self.calls == "named":
            own_id = ""
            if self.call_id is not None:
                own_id = f"({self.call_id} ID)? "
                yield "ID: /[a-zA-Z0-9]{9}/"
            for number, (function, schema) in numbered:
                name = json.dumps(function.name)
                yield f"call{number}: {self.tool_calls} {name} {own_id}{self.args} SPACE? {json_rule(schema)}"
            yield f"calls: ({_any_call(numbered)}){'+' if many else ''}"
            return
        for number, (function, schema) in numbered:
            before = json.dumps('{"name": ' + json.dumps(function.name) + ', "arguments": ')
            yield f'call{number}: {before} {json_rule(schema)} "}}"'
        more = f' (", " ({_any_call(numbered)}))*' if many else ""
        listed = f'"[" ({_any_call(numbered)}){more} "]"'
        if self.calls == "tagged":
            yield f'calls: {listed} "{END_CALL_TAG}"'
        else:
            yield f"calls: {self.tool_calls} SPACE? {listed}"


def _any_call(numbered: list[Any]) -> str:
    return " | ".join(f"call{number}" for number, _ in numbered)


def _callable_functions(request: ChatCompletionRequest) -> list[FunctionDef]:
    """Return the functions that this answer may call."""
    choice = request.tool_choice
    if not isinstance(choice, NamedToolChoice):
        return request.functions
    return [function for function in request.functions if function.name == choice.function.name]


def _json_answer(request: ChatCompletionRequest) -> str | None:
    wanted = request.response_format
    if wanted.type == "text":
        return None
    if wanted.json_schema is None:
        return json_rule(ANY_OBJECT)
    schema = checked_schema(wanted.json_schema.schema_definition, "response_format")
    return json_rule(schema, unique_items=not request.functions)


def _schema_with_unique_items(request: ChatCompletionRequest) -> str | None:
    """Return the schema of the answer if it is to be watched. An answer that may be a call instead is not."""
    wanted = request.response_format.json_schema
    if wanted is None or not has_unique_items(wanted.schema_definition):
        return None
    return json.dumps(wanted.schema_definition)


def _prefix(request: ChatCompletionRequest) -> str:
    """Return the text that the answer begins with already."""
    content = request.continued.content if request.continued is not None else None
    if isinstance(content, list) and not all(isinstance(chunk, TextChunk) for chunk in content):
        raise InvalidArguments(
            "A prefix with other content than text cannot begin a JSON answer", param="response_format"
        )
    return request.continued_text
