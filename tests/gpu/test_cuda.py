"""The decoder, the vision encoder and the engine on a CUDA device, held against the same code on the CPU in float32."""

from __future__ import annotations

import math

import pytest
import torch

from mezzo.engine import sampler
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.loader import resolve_device, resolve_dtype
from mezzo.engine.messages import AddRequest
from mezzo.engine.runner import Runner
from mezzo.engine.sampling_params import SamplingParams
from mezzo.engine.sequence import Sequence
from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.config import ModelConfig, RopeConfig
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.vision import Vision
from mezzo.model.vision_config import VisionConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
YARN = RopeConfig(kind="yarn", factor=8.0, original_max_positions=64, query_scale_beta=0.1)
CONFIGS = {
    "gqa": ModelConfig(dim=192, n_layers=4, head_dim=64, hidden_dim=512, n_heads=6, n_kv_heads=2, vocab_size=1000),
    "window": ModelConfig(
        dim=128, n_layers=3, head_dim=32, hidden_dim=256, n_heads=8, n_kv_heads=4, vocab_size=700, sliding_window=50
    ),
    "yarn-tied": ModelConfig(
        dim=256, n_layers=3, head_dim=128, hidden_dim=512, n_heads=4, n_kv_heads=1, vocab_size=999,
        tied_embeddings=True, rope=YARN,
    ),
}  # fmt: skip
# Relative error of the logits, ||ours - reference|| / ||reference||. float32 differs by the order of sums; bfloat16
# keeps 8 bits, and the error of a product of a few layers stays near one of them.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def make_pair(config: ModelConfig, dtype: torch.dtype) -> tuple[Decoder, Decoder]:
    """Return a random decoder on the CPU in float32, and a copy of it on the device in `dtype`."""
    generator = torch.Generator().manual_seed(7)
    reference = Decoder(config, torch.float32).requires_grad_(False)
    for name, parameter in reference.named_parameters():
        scale = 1.0 if "norm" in name else 1.5 / math.sqrt(parameter.shape[-1])
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    with CUDA:
        ours = Decoder(config, dtype).requires_grad_(False)
    for (_, target), (_, source) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        target.copy_(source)
    return reference, ours


def run(decoder: Decoder, chunks: list[dict[int, int]], token_ids: torch.Tensor) -> torch.Tensor:
    """Feed sequences in steps: each step names how many tokens of which sequence. Returns all logits."""
    device, dtype = decoder.device, decoder.dtype
    cache = KVCache(decoder.config, num_blocks=32, block_size=16, dtype=dtype, device=device)
    tables = [list(range(i * 16, i * 16 + 16)) for i in range(2)]
    lengths = [0, 0]
    logits = []
    for chunk in chunks:
        spans = [SequenceSpan(tables[i], lengths[i], n) for i, n in chunk.items()]
        positions = torch.cat([torch.arange(s.num_context, s.num_context + s.num_new) for s in spans])
        ids = torch.cat([token_ids[i, lengths[i] : lengths[i] + n] for i, n in chunk.items()])
        for i, n in chunk.items():
            lengths[i] += n
        plan = plan_attention(spans, cache, decoder.config, dtype, device)
        with torch.inference_mode():
            rows = torch.arange(len(ids), device=device)
            logits.append(decoder(ids.to(device), positions.to(device), plan, cache, rows).cpu())
    return torch.cat(logits)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_match_the_cpu(name: str, dtype: torch.dtype) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    reference, ours = make_pair(CONFIGS[name], dtype)
    ids = torch.randint(CONFIGS[name].vocab_size, (2, 200), generator=torch.Generator().manual_seed(1))
    steps = [{0: 100}, {0: 1, 1: 40}, {0: 1, 1: 1}, {1: 60, 0: 1}, {0: 1, 1: 1}]
    expected, actual = run(reference, steps, ids), run(ours, steps, ids)
    assert actual.dtype is torch.float32
    assert torch.isfinite(actual).all()
    error = (actual - expected).norm() / expected.norm()
    assert error < TOLERANCE[dtype], f"relative error {error:.2e}"


VISION = VisionConfig(
    hidden_size=256, image_size=448, patch_size=14, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
    spatial_merge_size=2, image_token_id=1, projector_norm=True, patch_merger=True, projector_bias=True,
)  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_images_are_seen_as_on_the_cpu(dtype: torch.dtype) -> None:
    """Images of several shapes, two of one size; encoded on the device in two goes."""
    torch.backends.cuda.matmul.allow_tf32 = False
    generator = torch.Generator().manual_seed(7)
    reference = Vision(VISION, 192, torch.float32).requires_grad_(False)
    for name, parameter in reference.named_parameters():
        scale = 1.0 if parameter.ndim == 1 else 1 / math.sqrt(parameter[0].numel())
        shift = 1.0 if "norm" in name or "ln_pre" in name else 0.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale * (1 - 0.7 * shift) + shift)
    with CUDA:
        ours = Vision(VISION, 192, dtype).requires_grad_(False)
    for (_, target), (_, source) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        target.copy_(source)
    images = [
        torch.randint(256, (28 * rows, 28 * columns, 3), generator=generator, dtype=torch.uint8)
        for rows, columns in [(4, 6), (1, 1), (16, 16), (6, 4), (3, 11)]
    ]
    with torch.inference_mode():
        expected = reference(images)
        encoding = ours.begin(images)
        assert not ours.advance(encoding, 4)
        assert ours.advance(encoding, 4)
        actual = [part.cpu() for part in ours.finish(encoding)]
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype is torch.float32
        error = (one - other).norm() / other.norm()
        assert error < TOLERANCE[dtype], f"relative error {error:.2e}"


def test_auto_takes_the_device_and_its_number_format() -> None:
    assert resolve_device("auto").type == "cuda"
    assert resolve_dtype("auto", CUDA) is torch.bfloat16


def test_engine_generates_alone_as_in_a_batch_of_different_lengths() -> None:
    """In float32, with seeds: 20 requests together give the tokens that each gives alone."""
    config = CONFIGS["gqa"]
    _, decoder = make_pair(config, torch.float32)
    vocabulary = Vocabulary(
        token_bytes=tuple(f"{i} ".encode() for i in range(config.vocab_size)), eos_token_ids=frozenset({3})
    )

    def generate(requests: list[AddRequest]) -> dict[str, str]:
        cache = KVCache(config, num_blocks=200, block_size=16, dtype=torch.float32, device=CUDA)
        settings = EngineConfig(folder="", max_num_seqs=16, max_step_tokens=64, block_size=16)
        core = EngineCore(settings, vocabulary, Runner(Network(decoder), cache))
        for request in requests:
            core.add(request)
        texts: dict[str, str] = {r.request_id: "" for r in requests}
        while core.has_work:
            for output in core.step():
                texts[output.request_id] += output.text
        core.scheduler.check_integrity()
        assert core.stats.num_free_blocks == 200
        return texts

    requests = [
        AddRequest(
            request_id=f"r{i}",
            prompt_token_ids=[(7 * i + j) % 900 + 4 for j in range(5 + 9 * i)],
            params=SamplingParams(temperature=0.0 if i % 2 else 0.9, top_p=0.95, seed=i, max_tokens=24),
        )
        for i in range(20)
    ]
    together = generate(requests)
    alone = [generate([request])[request.request_id] for request in requests]
    num_equal = sum(together[r.request_id] == text for r, text in zip(requests, alone, strict=True))
    # The device's matrix products depend on the number of rows, in the last bits: a near tie may fall otherwise.
    assert num_equal >= 18, f"only {num_equal} of 20 are equal"


def test_sampling_on_the_device_equals_sampling_on_the_cpu() -> None:
    logits = torch.randn(6, 1000, generator=torch.Generator().manual_seed(3)) * 4
    sequences = [
        Sequence(
            request_id=str(i), index=0, prompt_token_ids=[1], seed=i, arrival=(i, 0),
            params=SamplingParams(temperature=0.7 * (i % 3), top_p=1.0 if i < 3 else 0.8, presence_penalty=0.5),
        )
        for i in range(6)
    ]  # fmt: skip
    assert sampler.sample(logits.cuda(), sequences) == sampler.sample(logits.clone(), sequences)


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    from mezzo.engine.loader import CannotLoad

    with pytest.raises(CannotLoad, match="CUDA devices"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")
