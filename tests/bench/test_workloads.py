"""What each workload sends, and the figures it is about, from schedules that are known."""

from __future__ import annotations

from typing import Any

import pytest

from mezzo.bench.client import Message, Sample, Target
from mezzo.bench.load import Loads
from mezzo.bench.run import first_number, measure
from mezzo.bench.workloads.arrivals import Arrivals
from mezzo.bench.workloads.base import Session
from mezzo.bench.workloads.chats import Chats
from mezzo.bench.workloads.interruption import Interruption, worst_gap_s
from mezzo.bench.workloads.prediction import Prediction
from mezzo.bench.workloads.prefill import Prefill
from mezzo.bench.workloads.streams import Streams
from tests.bench.events import DONE, event, usage
from tests.bench.scripted_server import Script, ScriptedServer

LONG = 1000  # characters, of a prompt that is to be read rather than answered


def session(server: ScriptedServer, **options: Any) -> Session:
    return Session(Target("scripted", server.url, "nano"), seed=1, first=first_number(1, 0), **options)


def first_words(server: ScriptedServer) -> list[str]:
    return [body["messages"][-1]["content"].split(":")[0] for body in server.bodies]


class TestStreams:
    WORKLOAD = Streams(streams=(1, 3), requests_per_stream=2, min_requests=4, max_tokens=2)

    async def test_each_number_of_streams_has_its_load_and_its_figures(
        self, scripted: ScriptedServer
    ) -> None:
        scripted.script = [event("a"), 0.01, event("b", "length", **usage(10, 2)), DONE]
        result = await measure(self.WORKLOAD, session(scripted))
        assert [(load.name, load.requests, load.streams) for load in result.loads] == [
            ("streams, 1", 4, 1),
            ("streams, 3", 6, 3),
        ]
        assert [figure.name for figure in result.figures if figure.unit == "tokens/s"] == [
            "throughput, 1 stream",
            "decode of each stream, 1 stream",
            "throughput, 3 streams",
            "decode of each stream, 3 streams",
        ]
        values = {figure.name: figure for figure in result.figures}
        assert values["throughput, 3 streams"].value == result.loads[1].completion_tokens_per_s
        assert values["ITL p99, 1 stream"].better == "lower"
        assert scripted.max_open == 3
        assert {body["max_tokens"] for body in scripted.bodies} == {2}

    async def test_every_prompt_is_new_and_the_same_for_every_server(
        self, scripted: ScriptedServer, other_scripted: ScriptedServer
    ) -> None:
        for server in (scripted, other_scripted):
            server.script = [event("a", "stop", **usage(1, 1)), DONE]
            await measure(self.WORKLOAD, session(server))
        assert len(set(first_words(scripted))) == len(scripted.bodies) == 10
        assert sorted(first_words(scripted)) == sorted(first_words(other_scripted))

    async def test_ones_own_messages_come_in_turn(self, scripted: ScriptedServer) -> None:
        scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
        own = [(Message("user", "one"),), (Message("user", "two"),), (Message("user", "three"),)]
        await measure(Streams(streams=(1, 1), min_requests=4), session(scripted, own=own))
        assert first_words(scripted) == ["one", "two", "three", "one", "two", "three", "one", "two"]


class TestPrefill:
    async def test_tokens_of_the_prompt_by_the_time_to_the_first(self, scripted: ScriptedServer) -> None:
        scripted.script = [0.05, event("a", "length", **usage(1500, 1)), DONE]
        result = await measure(Prefill(), session(scripted))
        (figure,) = result.figures
        assert (figure.name, figure.unit) == ("prefill", "tokens/s")
        assert 300 < figure.value <= 1500 / 0.05
        assert {body["max_tokens"] for body in scripted.bodies} == {1}
        assert len(set(first_words(scripted))) == 3

    async def test_no_figure_where_everything_failed(self, scripted: ScriptedServer) -> None:
        scripted.status = b"503 Service Unavailable"
        result = await measure(Prefill(), session(scripted))
        assert result.figures == []
        assert result.num_failed == 3


class TestChats:
    async def test_every_turn_contains_the_earlier_answers(self, scripted: ScriptedServer) -> None:
        def respond(body: dict[str, Any]) -> Script:
            asked = body["messages"][-1]["content"][:20]
            return [event(f"on {asked}", "stop", **usage(1, 3)), DONE]

        scripted.respond = respond
        result = await measure(Chats(chats=3, turns=4), session(scripted))
        assert len(scripted.bodies) == 12
        assert len({body["messages"][0]["content"] for body in scripted.bodies}) == 1
        assert {body["messages"][0]["role"] for body in scripted.bodies} == {"system"}
        longest = [body["messages"] for body in scripted.bodies if len(body["messages"]) == 8]
        assert len({messages[1]["content"] for messages in longest}) == 3
        for messages in longest:
            assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
            for asked, answer in zip(messages[1::2], messages[2::2], strict=False):
                assert answer["content"] == f"on {asked['content'][:20]}"
        (figure,) = result.figures
        assert (figure.name, figure.unit) == ("chats, total time", "s")
        assert figure.value == result.loads[0].wall_s

    async def test_a_chat_that_fails_ends_and_there_is_no_total(self, scripted: ScriptedServer) -> None:
        scripted.script = [event("a", "stop", **usage(1, 1)), DONE]
        scripted.scripts = [scripted.script, [event("a"), None]]
        result = await measure(Chats(chats=1, turns=4), session(scripted))
        assert len(scripted.bodies) == 2
        assert result.figures == []
        assert "failed" in result.notes[0]
        assert result.loads[0].errors["cut stream"].count == 1


class TestInterruption:
    async def test_the_gap_of_the_streams_and_the_wait_of_the_long_prompt(
        self, scripted: ScriptedServer
    ) -> None:
        """The long prompt arrives half a second after the streams began, and they pause for it from 0.7 to 1.1 s."""
        story: Script = [
            event("a"),
            0.35,
            event("b"),
            0.35,
            event("c"),
            0.4,
            event("d", "length", **usage(9, 4)),
            DONE,
        ]
        long: Script = [0.3, event("x", "length", **usage(3000, 1)), DONE]
        scripted.respond = lambda body: long if len(body["messages"][0]["content"]) > LONG else story
        result = await measure(Interruption(streams=3), session(scripted))
        gap, ttft = result.figures
        assert gap.name == "interruption, worst gap of the streams"
        assert 400 <= gap.value < 700
        assert ttft.name == "interruption, TTFT of the long prompt"
        assert 300 <= ttft.value < 600
        assert result.notes == []
        assert [load.requests for load in result.loads] == [3, 1]
        assert scripted.bodies[-1]["max_tokens"] == 1

    async def test_streams_that_end_too_soon_are_told(self, scripted: ScriptedServer) -> None:
        scripted.script = [event("a"), event("b", "stop", **usage(9, 2)), DONE]
        result = await measure(Interruption(streams=2), session(scripted))
        assert [figure.name for figure in result.figures] == ["interruption, TTFT of the long prompt"]
        assert "only 0 of 2 streams were still running" in result.notes[0]

    def test_only_gaps_that_reach_into_the_time_count(self) -> None:
        sample = Sample(started_at=100.0, event_times_s=[0.0, 3.0, 4.0, 6.0, 11.0])
        assert worst_gap_s(sample, 103.5, 105.0) == 2.0
        assert worst_gap_s(sample, 102.0, 105.0) == 3.0
        assert worst_gap_s(sample, 120.0, 121.0) == 0.0


class TestPrediction:
    ANSWER = "one two three four five six seven eight"

    def respond(self, body: dict[str, Any]) -> Script:
        pause = 0.05 if "prediction" in body else 0.2
        return [pause, event(self.ANSWER, "stop", **usage(400, 8)), DONE]

    async def test_the_servers_own_answer_is_predicted_but_for_some_words(
        self, scripted: ScriptedServer
    ) -> None:
        scripted.respond = self.respond
        result = await measure(Prediction(requests=1), session(scripted))
        plain, predicted = scripted.bodies
        assert "prediction" not in plain
        assert plain["messages"] == predicted["messages"]
        words = zip(self.ANSWER.split(), predicted["prediction"]["content"].split(), strict=True)
        assert sum(one != other for one, other in words) == 4
        without, with_it = result.figures
        assert (without.name, with_it.name) == (
            "repetition, without prediction",
            "repetition, with prediction",
        )
        assert without.value <= 8 / 0.2
        assert without.value < with_it.value <= 8 / 0.05

    async def test_a_server_that_refuses_it_is_measured_without(self, scripted: ScriptedServer) -> None:
        def respond(body: dict[str, Any]) -> Script:
            scripted.status = b"422 Unprocessable Entity" if "prediction" in body else b"200 OK"
            return [b"extra fields"] if "prediction" in body else self.respond(body)

        scripted.respond = respond
        result = await measure(Prediction(requests=2), session(scripted))
        without, with_it = result.figures
        assert without.value == with_it.value
        assert result.num_failed == 0
        assert "takes no prediction" in result.notes[0]
        assert "HTTP 422: extra fields" in result.notes[0]
        assert [load.name for load in result.loads] == ["prediction, without"]

    async def test_any_other_failure_is_one(self, scripted: ScriptedServer) -> None:
        scripted.respond = lambda body: [event("a"), None] if "prediction" in body else self.respond(body)
        result = await measure(Prediction(requests=1), session(scripted))
        assert result.num_failed == 1
        assert [figure.name for figure in result.figures] == ["repetition, without prediction"]


class TestArrivals:
    async def test_requests_come_whether_earlier_ones_are_answered_or_not(
        self, scripted: ScriptedServer
    ) -> None:
        scripted.script = [0.3, event("a", "stop", **usage(1, 1)), DONE]
        loads = Loads()
        result = await measure(Arrivals(rate=60, duration_s=0.5), session(scripted, loads=loads))
        (load,) = result.loads
        assert load.rate == 60
        assert 10 < load.requests < 60
        assert load.requests == loads.all[0].planned == len(scripted.bodies)
        assert scripted.max_open > 5
        assert [figure.name for figure in result.figures] == [
            "TTFT p50, 60 requests/s",
            "TTFT p99, 60 requests/s",
            "end to end p50, 60 requests/s",
            "end to end p99, 60 requests/s",
        ]

    async def test_a_time_in_which_nothing_comes_is_told(self, scripted: ScriptedServer) -> None:
        result = await measure(Arrivals(rate=0.001, duration_s=0.1), session(scripted))
        assert result.figures == []
        assert "nothing arrived" in result.notes[0]


@pytest.mark.parametrize(
    "workload", [Streams(), Prefill(), Chats(), Interruption(), Prediction(), Arrivals(rate=5)]
)
def test_a_warm_up_is_a_smaller_piece_of_the_same(workload: Any) -> None:
    assert type(workload.short()) is type(workload)
    assert workload.short() != workload
