"""Every message survives the border, and what is no message is refused."""

from __future__ import annotations

import typing

import msgspec
import pytest

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.messages import (
    HEADER,
    Abort,
    AddRequest,
    EngineStats,
    Failed,
    FromEngine,
    ImageInput,
    Loading,
    Ready,
    SequenceOutput,
    Start,
    StepDone,
    Stop,
    ToEngine,
    decode_from_engine,
    decode_to_engine,
    encode_frame,
)
from mezzo.engine.sampling_params import SamplingParams

STATS = EngineStats(
    num_running=1,
    num_waiting=2,
    num_blocks=3,
    num_free_blocks=4,
    num_requests=6,
    num_steps=5,
    num_preemptions=6,
    num_prompt_tokens=7,
    num_completion_tokens=2**40,
    num_draft_tokens=10,
    num_accepted_tokens=11,
    num_image_hits=8,
    num_image_misses=9,
    num_prefix_hits=12,
    num_prefix_misses=13,
    num_cached_tokens=14,
)
TO_ENGINE: list[ToEngine] = [
    Start(
        EngineConfig(folder="weights/ü", device="cuda:1", dtype="bfloat16", threads=3, kv_cache_tokens=100),
        Vocabulary(
            token_bytes=(b"", b"\xff\x00", "é".encode()),
            eos_token_ids=frozenset({2, 5}),
            marker_token_ids=frozenset({7}),
        ),
    ),
    AddRequest(
        request_id="r",
        prompt_token_ids=[0, 1, 2**31],
        params=SamplingParams(
            temperature=0.7,
            top_p=0.9,
            seed=2**63 - 1,
            presence_penalty=-1.5,
            frequency_penalty=0.25,
            max_tokens=10,
            stop=("\n", "😀"),
        ),
        n=3,
        images=(ImageInput(key=b"\xff", start=0, num_tokens=2, height=1, width=1, pixels=b"\x00\x80\xff"),),
    ),
    AddRequest(request_id="", prompt_token_ids=[], params=SamplingParams()),
    Abort("r"),
    Stop(),
]
FROM_ENGINE: list[FromEngine] = [
    Loading(5, 10),
    Ready(
        device="cpu",
        dtype="float32",
        threads=2,
        max_context_length=8192,
        num_blocks=10,
        block_size=64,
        weights_bytes=2**40,
        kv_cache_bytes=2**41,
        load_s=1.25,
    ),
    Failed("no such file: ü"),
    StepDone([], STATS),
    StepDone(
        [
            SequenceOutput(request_id="r", index=1, text="\ufffd😀", num_tokens=1, marker=7),
            SequenceOutput(request_id="r", index=0, text="", num_tokens=0, finish_reason="model_length"),
        ],
        STATS,
    ),
]


def name(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", TO_ENGINE, ids=name)
def test_a_message_to_the_engine_survives(message: ToEngine) -> None:
    frame = encode_frame(message)
    assert HEADER.unpack_from(frame)[0] == len(frame) - HEADER.size
    assert decode_to_engine(frame[HEADER.size :]) == message


@pytest.mark.parametrize("message", FROM_ENGINE, ids=name)
def test_a_message_from_the_engine_survives(message: FromEngine) -> None:
    assert decode_from_engine(encode_frame(message)[HEADER.size :]) == message


def test_no_kind_of_message_is_missing_above() -> None:
    assert {type(m) for m in TO_ENGINE} == set(typing.get_args(ToEngine))
    assert {type(m) for m in FROM_ENGINE} == set(typing.get_args(FromEngine))


@pytest.mark.parametrize("reason", ["stop", "stop_string", "length", "model_length", "error", "abort"])
def test_every_finish_reason_survives(reason: typing.Any) -> None:
    output = SequenceOutput(request_id="r", index=0, text="", num_tokens=0, finish_reason=reason)
    message = StepDone([output], STATS)
    assert decode_from_engine(encode_frame(message)[HEADER.size :]) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "unknown"}),
        msgspec.msgpack.encode({"type": "add", "request_id": "r"}),
        msgspec.msgpack.encode({"type": "add", "request_id": "r", "prompt_token_ids": ["x"], "params": {}}),
        msgspec.msgpack.encode(
            {"type": "add", "request_id": "r", "prompt_token_ids": [], "params": {"top_p": 0}}
        ),
        msgspec.msgpack.encode({"type": "step", "outputs": [], "stats": {}}),
    ],
)
def test_what_is_no_message_to_the_engine_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_to_engine(payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_num_seqs": 0},
        {"max_step_tokens": 0},
        {"block_size": 0},
        {"threads": 0},
        {"kv_cache_tokens": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_engine_config_out_of_range_is_refused_by_name(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must be at least 1"):
        EngineConfig(folder="f", **changes)  # type: ignore[arg-type]
