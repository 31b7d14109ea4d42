"""Log-probabilities of given tokens: those of the model, however the prompt is cut and whoever runs beside it."""

from __future__ import annotations

import pytest
import torch

from mezzo.engine.messages import AddRequest, SequenceOutput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.decoder import Decoder
from mezzo.train.decoder_pass import hidden_states
from tests.tiny import make_core, make_request

TEXT = list(b"The quick brown fox jumps over the lazy dog, and then it does so once more, for luck.")


def scored(request_id: str, token_ids: list[int], scored_from: int, **fields: object) -> AddRequest:
    return AddRequest(
        **{  # type: ignore[arg-type]
            "request_id": request_id,
            "prompt_token_ids": token_ids,
            "params": SamplingParams(max_tokens=0),
            "scored_from": scored_from,
        }
        | fields
    )


def run(decoder: Decoder, *requests: AddRequest, **shape: int) -> dict[str, SequenceOutput]:
    core = make_core(decoder, **shape)
    for request in requests:
        core.add(request)
    last = {}
    while core.has_work:
        for output in core.step():
            last[output.request_id] = output
        core.scheduler.check_integrity()
    assert core.scheduler.pool.num_free == core.scheduler.pool.num_blocks
    return last


@torch.inference_mode()
def expected(decoder: Decoder, token_ids: list[int]) -> torch.Tensor:
    """Log-probabilities by the pass that training uses, (tokens - 1, vocab_size)."""
    embeddings = decoder.tok_embeddings(torch.tensor([token_ids]))
    return torch.log_softmax(decoder.output(hidden_states(decoder, embeddings)[0]), -1)[:-1]


@pytest.mark.parametrize("scored_from", [1, 2, 31, 32, 33, len(TEXT) - 1])
def test_each_token_is_scored_after_those_before_it(decoder: Decoder, scored_from: int) -> None:
    """Prompts are cut into chunks of 32: seams must not show."""
    logprobs = expected(decoder, TEXT)
    output = run(decoder, scored("r", TEXT, scored_from))["r"]
    assert (output.finish_reason, output.num_tokens, output.text) == ("length", 0, "")
    assert len(output.scores) == len(TEXT) - scored_from
    for position, score in enumerate(output.scores, scored_from):
        row = logprobs[position - 1]
        assert score.logprob == pytest.approx(row[TEXT[position]].item(), abs=1e-4)
        assert score.is_greedy == (row.argmax().item() == TEXT[position])


def test_a_greedy_answer_is_all_greedy(decoder: Decoder) -> None:
    core = make_core(decoder)
    core.add(make_request(prompt=TEXT[:20], max_tokens=15))
    sequence = core._requests["r"][0]
    while core.has_work:
        core.step()
    token_ids = sequence.tokens_between(0, sequence.num_tokens)
    scores = run(decoder, scored("r", token_ids, 20))["r"].scores
    assert len(scores) == 15
    assert all(score.is_greedy for score in scores)
    changed = [*token_ids[:25], (token_ids[25] + 1) % 256, *token_ids[26:]]
    assert not run(decoder, scored("r", changed, 20))["r"].scores[5].is_greedy


def test_beside_others_and_with_little_room_it_is_the_same(decoder: Decoder) -> None:
    alone = run(decoder, scored("r", TEXT, 3))["r"].scores
    others = [make_request(f"o{i}", TEXT[i:40], max_tokens=30) for i in range(5)]
    last = run(decoder, *others[:3], scored("r", TEXT, 3), *others[3:], num_blocks=14)
    assert [score.is_greedy for score in last["r"].scores] == [score.is_greedy for score in alone]
    assert [s.logprob for s in last["r"].scores] == pytest.approx([s.logprob for s in alone], abs=1e-4)
    assert all(last[f"o{i}"].finish_reason == "length" for i in range(5))


@pytest.mark.parametrize(
    ("scored_from", "fields", "message"),
    [
        (0, {}, "scored_from"),
        (len(TEXT), {}, "scored_from"),
        (3, {"n": 2}, "n must be 1"),
        (3, {"params": SamplingParams(max_tokens=5)}, "max_tokens 0"),
        (3, {"params": SamplingParams()}, "max_tokens 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    decoder: Decoder, scored_from: int, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_core(decoder).add(scored("r", TEXT, scored_from, **fields))
