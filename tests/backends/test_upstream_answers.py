"""What an upstream is sent, and what is made of the streams that servers write."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.backends.fronts import (
    QUESTION,
    TOOL,
    UPSTREAM_KEY,
    answer_of,
    front_of,
    send,
    stream_of,
    text_of,
)
from tests.backends.scripted_upstream import (
    DONE,
    VLLM_MODELS,
    ScriptedUpstream,
    chunk,
    event,
    totals,
    usage,
)
from tests.server.live import (
    KEY,
    MODEL,
    LiveServer,
    assert_error,
    chat,
    wait_for_record,
)


class TestRequest:
    """What reaches an upstream."""

    def test_fields_are_passed_on_as_they_were_sent(self, scripted: ScriptedUpstream) -> None:
        scripted.script = [chunk("Hi", "stop", **usage(3, 1)), DONE]
        sent = chat(
            [{"type": "text", "text": "é"}],
            temperature=0.5,
            stop=["x"],
            random_seed=7,
            metadata={"a": [1.5, None]},
            tools=[TOOL],
            tool_choice="any",
            stream_options={"stream_tool_calls": True},
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}},
            },
        )
        # Not listed anywhere: the dialect is then taken for Mistral's.
        scripted.models, models = None, scripted.models
        try:
            with front_of(scripted.base_url) as front:
                assert front.post(sent).status_code == 200
        finally:
            scripted.models = models
        options = {"stream_tool_calls": True, "include_usage": True}
        assert scripted.bodies == [sent | {"model": "there", "stream": True, "stream_options": options}]

    def test_openais_servers_get_openais_names(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("Hi", "stop"), totals(3, 1), DONE]
        call = {"id": "abcdefghi", "function": {"name": "f", "arguments": {"a": 1}}, "index": 0}
        messages = [
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.org/a.png"}]},
            {"role": "assistant", "content": "", "tool_calls": [call], "prefix": False},
            {"role": "tool", "content": "1", "tool_call_id": "abcdefghi", "name": "f"},
        ]
        body = chat(random_seed=7, tools=[TOOL], tool_choice="any", safe_prompt=False, guardrails=[])
        assert openai_front.post(body | {"messages": messages}).status_code == 200
        (got,) = scripted.bodies
        assert got["seed"] == 7
        assert got["tool_choice"] == "required"
        assert got["stream_options"] == {"include_usage": True}
        assert not {"random_seed", "safe_prompt", "guardrails"} & got.keys()
        assert got["messages"][0]["content"][0]["image_url"] == {"url": "https://example.org/a.png"}
        assert got["messages"][1]["tool_calls"] == [
            {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ]
        assert "prefix" not in got["messages"][1]

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"safe_prompt": True}, "safe_prompt"),
            ({"messages": [QUESTION, {"role": "assistant", "content": "b", "prefix": True}]}, "messages"),
        ],
    )
    def test_what_openai_has_no_words_for_is_refused(
        self, openai_front: LiveServer, fields: dict[str, Any], param: str
    ) -> None:
        assert_error(openai_front.post(chat() | fields), 400, code="3051", param=param)

    def test_it_is_named_and_authorized_and_no_header_of_the_client_goes_along(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("Hi", "stop"), totals(3, 1), DONE]
        response = openai_front.post(chat(), headers={"cookie": "a=b", "x-forwarded-for": "10.0.0.1"})
        (head,) = scripted.heads
        assert head.startswith("post /v1/chat/completions http/1.1")
        assert f"authorization: bearer {UPSTREAM_KEY}" in head
        assert f"x-request-id: {response.json()['id']}" in head
        assert "accept-encoding: identity" in head
        assert not any(name in head for name in ("cookie", "x-forwarded-for", KEY))

    def test_connections_are_used_again(self, scripted: ScriptedUpstream, openai_front: LiveServer) -> None:
        scripted.script = [chunk("Hi", "stop"), totals(3, 1), DONE]
        openai_front.post(chat())
        before = scripted.num_connections
        for stream in (True, False, True):
            assert openai_front.post(chat(stream=stream)).status_code == 200
        assert scripted.num_connections == before


class TestAnswer:
    """What is made of the streams that servers write."""

    def test_usage_that_comes_after_the_finish_is_what_counts(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        details = {"prompt_tokens_details": {"cached_tokens": 4}}
        # More events than tokens, as servers do that cut their text anew.
        scripted.script = [
            chunk({"role": "assistant", "content": ""}),
            *[chunk(c) for c in "abcdef"],
            chunk({}, "length"),
            totals(20, 2, **details),
            DONE,
        ]
        answer = answer_of(openai_front)
        assert answer["choices"][0]["message"]["content"] == "abcdef"
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["prompt_tokens"] == 20
        assert answer["usage"]["completion_tokens"] == 2
        assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
        chunks = stream_of(openai_front)
        assert text_of(chunks) == "abcdef"
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert chunks[-1]["usage"] == answer["usage"]

    def test_without_usage_events_are_counted_and_the_record_says_so(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("a"), chunk("b"), chunk("c"), chunk({}, "stop"), DONE]
        with capture_logs() as logs:
            answer = answer_of(openai_front, content="12345678")
            record = wait_for_record(logs, request_id=answer["id"])
        assert answer["usage"]["completion_tokens"] == 3
        assert answer["usage"]["prompt_tokens"] == 3
        assert record["is_estimated"] is True

    def test_a_reported_answer_is_not_estimated(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("a"), chunk("b", "stop", **usage(3, 7)), DONE]
        with capture_logs() as logs:
            answer = answer_of(openai_front)
            record = wait_for_record(logs, request_id=answer["id"])
        assert record["completion_tokens"] == 7
        assert "is_estimated" not in record

    def test_choices_come_interleaved(self, scripted: ScriptedUpstream, openai_front: LiveServer) -> None:
        scripted.script = [
            chunk("a", index=1),
            chunk("b", index=0),
            event({"choices": [{"index": i, "delta": {"content": "c"}} for i in (0, 1)]}),
            chunk({}, "stop", index=1),
            chunk("d", "length", index=0),
            totals(5, 9),
            DONE,
        ]
        answer = answer_of(openai_front, n=2)
        assert [c["message"]["content"] for c in answer["choices"]] == ["bcd", "ac"]
        assert [c["finish_reason"] for c in answer["choices"]] == ["length", "stop"]
        assert answer["usage"]["completion_tokens"] == 9

    def test_vllm_counts_in_every_chunk(self, scripted: ScriptedUpstream) -> None:
        scripted.models, models = VLLM_MODELS, scripted.models
        scripted.script = [
            chunk("Hello ", **usage(6, 2)),
            chunk("Wo", index=1, **usage(6, 3)),
            chunk("World", **usage(6, 4)),
            30.0,
        ]
        try:
            with capture_logs() as logs, front_of(scripted.base_url) as front:
                (card,) = (c for c in front.client.get("/v1/models").json()["data"] if c["id"] == MODEL)
                assert card["max_context_length"] == 5000
                connection = send(front, chat(stream=True, n=2))
                received = b""
                while b"World" not in received:
                    received += connection.recv(4096)
                connection.close()
                record = wait_for_record(logs, outcome="aborted")
                assert scripted.hung_up.wait(1)
                # Continued where vLLM is asked to, which does not repeat the beginning.
                scripted.script = [chunk("So so", "stop", **usage(6, 2)), totals(6, 2), DONE]
                prefix = {"role": "assistant", "content": "So", "prefix": True}
                answer = answer_of(front, messages=[{"role": "user", "content": "Hi"}, prefix])
        finally:
            scripted.models = models
        assert (record["prompt_tokens"], record["completion_tokens"]) == (6, 7)
        assert "is_estimated" not in record
        first, second = scripted.bodies
        assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
        assert second["messages"][1] == {"role": "assistant", "content": "So"}
        assert answer["choices"][0]["message"]["content"] == "SoSo so"

    @pytest.mark.parametrize("reason", ["tool_calls", "stop"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_tool_calls_in_fragments(
        self, scripted: ScriptedUpstream, openai_front: LiveServer, reason: str, stream: bool
    ) -> None:
        def fragment(index: int, arguments: str, **begin: Any) -> bytes:
            name = {"name": begin.pop("name")} if "name" in begin else {}
            function = {**name, "arguments": arguments}
            return chunk({"tool_calls": [{"index": index, "function": function, **begin}]})

        scripted.script = [
            chunk({"role": "assistant", "content": None}),
            fragment(0, "", id="call_1", type="function", name="get_weather"),
            fragment(0, '{"city": '),
            fragment(0, '"Paris"}'),
            fragment(1, "", id="abcdefghi", type="function", name="now"),
            chunk({}, reason),
            totals(30, 12),
            DONE,
        ]
        if stream:
            last = stream_of(openai_front, tools=[TOOL])[-1]
            reason, calls = last["choices"][0]["finish_reason"], last["choices"][0]["delta"]["tool_calls"]
        else:
            (choice,) = answer_of(openai_front, tools=[TOOL])["choices"]
            reason, calls = choice["finish_reason"], choice["message"]["tool_calls"]
            assert choice["message"]["content"] == ""
        assert reason == "tool_calls"
        assert [(c["function"]["name"], c["function"]["arguments"], c["index"]) for c in calls] == [
            ("get_weather", '{"city": "Paris"}', 0),
            ("now", "{}", 1),
        ]
        assert len(calls[0]["id"]) == 9  # no id of OpenAI's form: clients could not send it back
        assert calls[0]["id"].isalnum()
        assert calls[1]["id"] == "abcdefghi"

    def test_tool_calls_as_mistral_sends_them(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
            return {"id": call_id, "function": {"name": name, "arguments": arguments}}

        scripted.script = [
            chunk({"tool_calls": [call("aaaaaaaaa", "f", "{}") | {"index": 0}]}),
            # Fragments with the id "null" and no name; a call under a number that was there; an object.
            chunk({"tool_calls": [call("bbbbbbbbb", "g", "") | {"index": 1}]}),
            chunk({"tool_calls": [call("null", "", '{"x":1}') | {"index": 1}]}),
            chunk({"tool_calls": [call("ccccccccc", "h", {"y": "é"})]}, "tool_calls", **usage(9, 9)),
            DONE,
        ]
        (choice,) = answer_of(openai_front, tools=[TOOL])["choices"]
        assert [(c["id"], c["function"]["arguments"]) for c in choice["message"]["tool_calls"]] == [
            ("aaaaaaaaa", "{}"),
            ("bbbbbbbbb", '{"x":1}'),
            ("ccccccccc", '{"y": "é"}'),
        ]

    @pytest.mark.parametrize(
        "deltas",
        [
            [{"reasoning_content": "h"}, {"reasoning": "m"}, {"content": "yes"}],
            [
                {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
                {"content": [{"type": "thinking", "thinking": [], "closed": True}, {"type": "text", "text": "y"}]},
                {"content": "es"},
            ],
        ],
    )  # fmt: skip
    def test_thinking_in_either_form(
        self, scripted: ScriptedUpstream, openai_front: LiveServer, deltas: list[dict[str, Any]]
    ) -> None:
        scripted.script = [*[chunk(one) for one in deltas], chunk({}, "stop", **usage(9, 9)), DONE]
        (choice,) = answer_of(openai_front)["choices"]
        trace = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
        assert choice["message"]["content"] == [trace, {"type": "text", "text": "yes"}]

    def test_a_byte_at_a_time_is_the_same_answer(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        whole = b": hello\r\n\r\nevent: x\r\n" + chunk("é🙂").replace(b"\n\n", b"\r\n\r\n")
        whole += b"data:" + chunk("b", "stop", **usage(2, 2))[6:] + DONE
        scripted.script = [whole[i : i + 1] for i in range(len(whole))]
        assert answer_of(openai_front)["choices"][0]["message"]["content"] == "é🙂b"

    def test_a_stream_without_the_last_event_ends_with_its_body(
        self, scripted: ScriptedUpstream, openai_front: LiveServer
    ) -> None:
        scripted.script = [chunk("a"), chunk({}, "eos")]
        (choice,) = answer_of(openai_front)["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("a", "stop")
