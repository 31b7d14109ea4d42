"""How long pictures hold up running streams: the steps of 8 streams while images, or a long text prompt, arrive.

    OMP_WAIT_POLICY=passive python -m benchmarks.image_steps [--threads 2] [--rounds 5] [--save]

A network of nano's shape with random weights and an encoder of about 14 million parameters: what is measured depends
on shapes, not on what weights know. Every load has its turn in each round, in the same process; given are medians over
the rounds of the median and of the worst step, in milliseconds, and the worst as a ratio to that of a text prompt with
as many tokens.
`--save` records them in benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import msgspec
import torch

from benchmarks.records import save
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest, ImageInput
from mezzo.engine.runner import Runner
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.vision_config import VisionConfig

NUM_STREAMS, IMAGE, PATCH, MERGE = 8, 49_151, 14, 2
CPU = torch.device("cpu")


def make_network(dtype: torch.dtype) -> Network:
    """Make a network of SmolLM2-135M's shape with eyes; its numbers are random and small."""
    vision = VisionConfig(
        hidden_size=384,
        image_size=1540,
        patch_size=PATCH,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        spatial_merge_size=MERGE,
        patch_merger=True,
        image_token_id=IMAGE,
    )
    config = ModelConfig(
        dim=576,
        n_layers=30,
        head_dim=64,
        hidden_dim=1536,
        n_heads=9,
        n_kv_heads=3,
        vocab_size=49_152,
        max_seq_len=8192,
        tied_embeddings=True,
        vision=vision,
    )
    network = Network.from_config(config, dtype).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return network


def make_core(network: Network, dtype: torch.dtype) -> EngineCore:
    config = EngineConfig(folder="unused", image_cache_tokens=0)
    cache = KVCache(network.config, num_blocks=400, block_size=config.block_size, dtype=dtype, device=CPU)
    vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
    return EngineCore(config, vocabulary, Runner(network, cache))


def text_request(num_tokens: int) -> AddRequest:
    token_ids = [7 * position % 1000 for position in range(num_tokens)]
    return AddRequest(request_id="text", prompt_token_ids=token_ids, params=SamplingParams(max_tokens=1))


def image_request(num_images: int, edge: int) -> AddRequest:
    """Ask about square pictures of `edge` pixels, each different."""
    side = edge // (PATCH * MERGE)
    layout = ([IMAGE] * side + [1]) * side
    token_ids, images = [5], []
    for number in range(num_images):
        pixels = torch.randint(0, 256, (edge, edge, 3), dtype=torch.uint8)
        images.append(
            ImageInput(
                key=bytes([number]),
                start=len(token_ids),
                num_tokens=len(layout),
                height=edge,
                width=edge,
                pixels=pixels.numpy().tobytes(),
            )
        )
        token_ids += layout
    params = SamplingParams(max_tokens=1)
    return AddRequest(request_id="images", prompt_token_ids=token_ids, params=params, images=tuple(images))


LOADS: dict[str, Callable[[], AddRequest | None]] = {
    "nothing": lambda: None,
    "273 tokens of text": lambda: text_request(273),
    "1 picture of 448 x 448": lambda: image_request(1, 448),
    "2,177 tokens of text": lambda: text_request(2177),
    "8 pictures of 448 x 448": lambda: image_request(8, 448),
    "3,081 tokens of text": lambda: text_request(3081),
    "1 picture of 1,540 x 1,540": lambda: image_request(1, 1540),
}
"""Each picture comes after the text that has as many tokens."""


def steps_ms(core: EngineCore, load: AddRequest | None) -> list[float]:
    """Return the milliseconds of each step from the load's arrival to its end, beside the streams."""
    for stream in range(NUM_STREAMS):
        params = SamplingParams(max_tokens=4000)
        prompt = [(31 * stream + position) % 1000 for position in range(100)]
        core.add(AddRequest(request_id=f"s{stream}", prompt_token_ids=prompt, params=params))
    while core.stats.num_running < NUM_STREAMS or core.stats.num_waiting:
        core.step()
    for _ in range(5):
        core.step()
    if load is not None:
        core.add(load)
    times = []
    for step in range(10_000):
        started = time.perf_counter()
        outputs = core.step()
        times.append(1e3 * (time.perf_counter() - started))
        if (load is None and step == 20) or any(
            output.request_id in ("text", "images") for output in outputs
        ):
            break
    for stream in range(NUM_STREAMS):
        core.abort(f"s{stream}")
    return times


class Figures(msgspec.Struct, frozen=True):
    """Medians over the rounds. worst_to_text: the worst step over that of the text with as many tokens."""

    num_steps: int
    median_ms: float
    worst_ms: float
    worst_to_text: float | None


def measure(core: EngineCore, rounds: int) -> dict[str, Figures]:
    all_steps: dict[str, list[list[float]]] = {name: [] for name in LOADS}
    for make in LOADS.values():  # once each, unmeasured
        steps_ms(core, make())
    for _ in range(rounds):
        for name, make in LOADS.items():
            all_steps[name].append(steps_ms(core, make()))
    worst = {name: statistics.median(max(steps) for steps in runs) for name, runs in all_steps.items()}
    figures, text_ms = {}, 0.0
    for name, runs in all_steps.items():
        if "text" in name:
            text_ms = worst[name]
        figures[name] = Figures(
            num_steps=len(runs[0]),
            median_ms=round(statistics.median(statistics.median(steps) for steps in runs), 1),
            worst_ms=round(worst[name], 1),
            worst_to_text=round(worst[name] / text_ms, 2) if "picture" in name else None,
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16
    figures = measure(make_core(make_network(dtype), dtype), options.rounds)
    for name, row in figures.items():
        ratio = "" if row.worst_to_text is None else f", {row.worst_to_text:.2f} of the text's"
        print(
            f"{name:28} {row.num_steps:3} steps, median {row.median_ms:6.1f} ms, worst {row.worst_ms:6.1f} ms{ratio}"
        )
    if options.save:
        print(save("image-steps", rounds=options.rounds, figures=figures))


if __name__ == "__main__":
    main()
