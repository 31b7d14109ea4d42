"""Multimodal networks against `transformers`, on random small configurations, in float32.

Each configuration is saved by `transformers` and loaded by mezzo, so reading the configuration, the image processor's
settings and the weights is tested with it. Prompts hold several images of different shapes, with ordinary tokens
between the rows as Pixtral's prompts have them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralVisionConfig,
    PixtralVisionModel,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.layout import HF_MULTIMODAL_SAVED
from mezzo.model.network import Network
from mezzo.model.vision import normalize
from tests.model.test_parity import CPU, MSCALE, OTHER_MSCALE, Run, assert_close, tokens

pytestmark = pytest.mark.slow

IMAGE, BREAK, END = 10, 11, 12
TEXT: dict[str, Any] = {
    "model_type": "mistral", "vocab_size": 160, "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 512, "sliding_window": None,
}  # fmt: skip
MINISTRAL3 = {"model_type": "ministral3", "head_dim": 16, "rope_parameters": MSCALE}
LLAMA = {"model_type": "llama"}
VISION: dict[str, Any] = {
    "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3,
    "num_attention_heads": 4, "patch_size": 4, "image_size": 64,
}  # fmt: skip
UNTIED = {"tie_word_embeddings": False}
FULL = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
# Class, changes to the whole, to its text_config, to its vision_config.
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "mistral": (Mistral3Config, UNTIED, {"rms_norm_eps": 1e-3}, {}),
    "mistral-tied-not-merged": (
        Mistral3Config,
        {"spatial_merge_size": 1, "vision_feature_layer": [-1], "multimodal_projector_bias": True},
        {"head_dim": 12, "sliding_window": 7},
        {"hidden_act": "silu", "patch_size": 6, "num_attention_heads": 2},
    ),
    "mistral-merged-by-three": (
        Mistral3Config,
        {**UNTIED, "spatial_merge_size": 3, "vision_feature_layer": 3, "projector_hidden_act": "quick_gelu"},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        {"hidden_size": 60, "num_attention_heads": 3, "patch_size": 2, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "ministral3": (
        Mistral3Config,
        {**UNTIED, "vision_feature_layer": [2], "projector_hidden_act": "gelu_new"},
        MINISTRAL3,
        {"hidden_act": "silu", "patch_size": 5, "num_hidden_layers": 2, "rope_parameters": {"rope_theta": 100.0}},
    ),
    "ministral3-tied": (
        Mistral3Config,
        {"multimodal_projector_bias": True, "projector_hidden_act": "silu"},
        {**MINISTRAL3, "rope_parameters": OTHER_MSCALE},
        {"num_attention_heads": 8, "hidden_act": "quick_gelu", "num_hidden_layers": 1},
    ),
    "ministral3-one-head": (
        Mistral3Config,
        {**UNTIED, "spatial_merge_size": 2},
        {**MINISTRAL3, "num_key_value_heads": 6},
        {"num_attention_heads": 1, "hidden_act": "gelu_fast", "rope_theta": 500.0},
    ),
    "llava-mistral": (LlavaConfig, FULL, {}, {"hidden_act": "silu"}),
    "llava-llama": (LlavaConfig, {**FULL, "multimodal_projector_bias": False}, LLAMA, {}),
    "llava-ministral3-tied": (LlavaConfig, FULL, {**MINISTRAL3, "tie_word_embeddings": True}, {"patch_size": 3}),
}  # fmt: skip
MODELS = {Mistral3Config: Mistral3ForConditionalGeneration, LlavaConfig: LlavaForConditionalGeneration}
PROCESSOR = PixtralImageProcessorPil(
    image_mean=[0.4, 0.5, 0.6], image_std=[0.3, 0.25, 0.2], size={"longest_edge": 64}
)


class Pair:
    """A reference and what mezzo loads of it."""

    def __init__(self, reference: Any, network: Network) -> None:
        self.reference = reference
        self.network = network
        assert network.config.vision is not None
        self.config = network.config.vision

    def images(self, shapes: list[tuple[int, int]], seed: int) -> list[torch.Tensor]:
        """Make images of so many merged patches down and across."""
        generator = torch.Generator().manual_seed(seed)
        edge = self.config.merged_patch_size
        return [
            torch.randint(256, (rows * edge, columns * edge, 3), generator=generator, dtype=torch.uint8)
            for rows, columns in shapes
        ]

    def reference_inputs(self, images: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        arrays = [image.numpy() for image in images]
        made = PROCESSOR(arrays, do_resize=False, input_data_format="channels_last", return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_sizes": made["image_sizes"]}

    def reference_logits(self, ids: torch.Tensor, images: list[torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            return self.reference(input_ids=ids[None], **self.reference_inputs(images)).logits[0]

    def embeddings(self, images: list[torch.Tensor]) -> torch.Tensor:
        assert self.network.vision is not None
        with torch.inference_mode():
            return torch.cat(self.network.vision(images))


@pytest.fixture(params=CASES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    config_class, changes, text, vision = CASES[request.param]
    config = config_class(
        image_token_index=IMAGE, text_config=TEXT | text, vision_config=VISION | vision, **changes
    )
    reference = MODELS[config_class](config).eval()
    randomize(reference, seed=sum(map(ord, request.param)))
    folder: Path = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    ours = ModelConfig.from_folder(folder)
    return Pair(reference, load_network(folder, ours, dtype=torch.float32, device=CPU))


def randomize(reference: Any, seed: int) -> None:
    """Give every parameter numbers that its neighbours lack, large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name or "ln_pre" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(1.25 * noise / parameter[0].numel() ** 0.5)


def prompt(shapes: list[tuple[int, int]], seed: int) -> torch.Tensor:
    """Make a prompt with images among its tokens: every row of one ends in a break, the last in an end."""
    text = tokens(8 * (len(shapes) + 1), seed).clamp(min=END + 1)
    parts = [text[:8]]
    for i, (rows, columns) in enumerate(shapes, start=1):
        image = torch.tensor(([IMAGE] * columns + [BREAK]) * rows)
        image[-1] = END
        parts += [image, text[8 * i : 8 * i + 8]]
    return torch.cat(parts)


class ImageRun(Run):
    """Feeds sequences with images in steps of the caller's choice; a border may stand anywhere."""

    def __init__(self, network: Network, embeddings: list[torch.Tensor]) -> None:
        super().__init__(network.decoder, num_sequences=len(embeddings))
        self.embeddings = embeddings
        self.num_seen = [0] * len(embeddings)

    def step(self, chunks: dict[int, torch.Tensor]) -> torch.Tensor:
        rows = (torch.cat(list(chunks.values())) == IMAGE).nonzero()[:, 0]
        parts = []
        for i, ids in chunks.items():
            first = self.num_seen[i]
            self.num_seen[i] += int((ids == IMAGE).sum())
            parts.append(self.embeddings[i][first : self.num_seen[i]])
        if not len(rows):
            return super().step(chunks)
        return super().step(chunks, image_rows=rows, image_embeddings=torch.cat(parts))


SHAPES = [(2, 3), (1, 1), (3, 2), (1, 4), (2, 3)]


def test_embeddings(pair: Pair) -> None:
    images = pair.images(SHAPES, 1)
    with torch.inference_mode():
        features = pair.reference.model.get_image_features(**pair.reference_inputs(images)).pooler_output
    assert [len(part) for part in features] == [rows * columns for rows, columns in SHAPES]
    assert_close(pair.embeddings(images), torch.cat(list(features)))


def test_whole_prompt(pair: Pair) -> None:
    ids, images = prompt(SHAPES, 2), pair.images(SHAPES, 2)
    run = ImageRun(pair.network, [pair.embeddings(images)])
    assert_close(run.step({0: ids}), pair.reference_logits(ids, images))


@pytest.mark.parametrize("chunk", [1, 5, 16, 33])
def test_chunks_with_borders_inside_images(pair: Pair, chunk: int) -> None:
    """A chunk of one token is decoding step by step."""
    ids, images = prompt(SHAPES, 3), pair.images(SHAPES, 3)
    run = ImageRun(pair.network, [pair.embeddings(images)])
    ours = torch.cat([run.step({0: part}) for part in ids.split(chunk)])
    assert_close(ours, pair.reference_logits(ids, images))


def test_decoding_after_a_prompt(pair: Pair) -> None:
    ids, images = prompt(SHAPES, 4), pair.images(SHAPES, 4)
    run = ImageRun(pair.network, [pair.embeddings(images)])
    ours = [run.step({0: ids[:-8]}), *(run.step({0: token[None]}) for token in ids[-8:])]
    assert_close(torch.cat(ours), pair.reference_logits(ids, images))


def test_two_sequences_with_images_in_ragged_steps(pair: Pair) -> None:
    """Their images are encoded together, and their tokens computed together, prefilling and decoding."""
    shapes = [SHAPES[:3], [(1, 2), (4, 1)]]
    ids = [prompt(shapes[i], 5 + i) for i in range(2)]
    images = [pair.images(shapes[i], 5 + i) for i in range(2)]
    sizes = [sum(rows * columns for rows, columns in part) for part in shapes]
    run = ImageRun(pair.network, list(pair.embeddings(images[0] + images[1]).split(sizes)))
    ours: list[list[torch.Tensor]] = [[], []]
    for lengths in ({0: 12}, {0: 9, 1: 11}, {1: 1, 0: 20}, {0: 1, 1: 10}, {0: 1, 1: 1}):
        chunks = {i: ids[i][run.lengths[i] : run.lengths[i] + n] for i, n in lengths.items()}
        logits = run.step(chunks).split(list(lengths.values()))
        for i, part in zip(lengths, logits, strict=True):
            ours[i].append(part)
    for i in range(2):
        assert_close(torch.cat(ours[i]), pair.reference_logits(ids[i], images[i])[: run.lengths[i]])


def test_images_change_what_follows_them(pair: Pair) -> None:
    """Else all of the above could pass with images left out on both sides."""
    ids = prompt(SHAPES, 7)
    one, other = (
        ImageRun(pair.network, [pair.embeddings(pair.images(SHAPES, seed))]).step({0: ids}) for seed in (8, 9)
    )
    assert torch.equal(one[:8], other[:8])
    assert (one[-1] - other[-1]).abs().max() > 0.05


@pytest.mark.parametrize("num_heads", [1, 2, 4, 8])
def test_the_encoder_alone(num_heads: int) -> None:
    reference = PixtralVisionModel(PixtralVisionConfig(**VISION | {"num_attention_heads": num_heads})).eval()
    randomize(reference, seed=num_heads)
    raw = {
        "model_type": "mistral3", "text_config": TEXT, "vision_config": reference.config.to_dict(),
        "image_token_index": IMAGE,
    }  # fmt: skip
    config = ModelConfig.from_hf(raw)
    network = Network.from_config(config, torch.float32).requires_grad_(False)
    assert network.vision is not None
    parameters = dict(network.named_parameters())
    places = HF_MULTIMODAL_SAVED.places(config, parameters)
    for name, tensor in reference.state_dict().items():
        place = places[f"vision_tower.{name}"]
        place.rows_of(parameters[place.parameter]).copy_(tensor)
    image = Pair(reference, network).images([(3, 5)], 1)[0]
    assert config.vision is not None
    pixels = normalize(image, config.vision).permute(2, 0, 1)[None]
    with torch.inference_mode():
        encoding = network.vision.begin([image])
        assert network.vision.advance(encoding, 3)
        theirs = reference(pixels, image_sizes=torch.tensor([image.shape[:2]])).last_hidden_state[0]
    assert_close(encoding.hidden, theirs)


def test_pixels_are_normalised_as_the_processor_does(pair: Pair) -> None:
    """All values of all colours; the processor computes in another order, so the last bits may differ."""
    values = torch.arange(256, dtype=torch.uint8)[:, None, None].expand(256, 16, 3).contiguous()
    theirs = PROCESSOR(
        values.numpy(), do_resize=False, input_data_format="channels_last", return_tensors="np"
    )["pixel_values"]
    ours = normalize(values, pair.config).permute(2, 0, 1)[None].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


IN_MEMORY = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


def rename_as_in_memory(folder: Path) -> None:
    """Give a saved checkpoint the names that its tensors have in memory, as some tools write them."""
    file = folder / "model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        (prefix,) = (prefix for prefix in IN_MEMORY if name.startswith(prefix))
        renamed[IN_MEMORY[prefix] + name.removeprefix(prefix)] = tensor
    save_file(renamed, file, metadata={"format": "pt"})


# Class, tie_word_embeddings of the whole, that of its text_config (None: not said), whether the file has a head of its
# own.
TYING = [
    (Mistral3Config, None, None, True),  # as Mistral Small 3.1 was saved
    (Mistral3Config, None, None, False),
    (Mistral3Config, None, False, True),
    (Mistral3Config, None, True, False),
    (Mistral3Config, True, False, False),
    (Mistral3Config, True, True, True),
    (Mistral3Config, False, True, True),
    (LlavaConfig, None, None, True),
    (LlavaConfig, None, True, False),
    (LlavaConfig, None, True, True),
    (LlavaConfig, False, True, False),
]


@pytest.mark.parametrize("layout", ["saved", "in memory"])
@pytest.mark.parametrize(("config_class", "top", "text", "has_head"), TYING)
def test_tied_embeddings_as_the_reference_reads_them(
    tmp_path: Path, config_class: Any, top: bool | None, text: bool | None, has_head: bool, layout: str
) -> None:
    config = config_class(
        image_token_index=IMAGE, text_config=TEXT, vision_config=VISION,
        **(FULL if config_class is LlavaConfig else {}), tie_word_embeddings=not has_head,
    )  # fmt: skip
    model = MODELS[config_class](config)
    randomize(model, seed=5)
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    for block, said in ((raw, top), (raw["text_config"], text)):
        block.pop("tie_word_embeddings", None)
        if said is not None:
            block["tie_word_embeddings"] = said
    (tmp_path / "config.json").write_text(json.dumps(raw))
    if layout == "in memory":
        rename_as_in_memory(tmp_path)
    reference = MODELS[config_class].from_pretrained(tmp_path).eval()
    ours = load_network(tmp_path, ModelConfig.from_folder(tmp_path), dtype=torch.float32, device=CPU)
    assert ours.config.tied_embeddings is not has_head
    pair, ids = Pair(reference, ours), prompt([(2, 2)], 1)
    run = ImageRun(ours, [pair.embeddings(images := pair.images([(2, 2)], 1))])
    assert_close(run.step({0: ids}), pair.reference_logits(ids, images))
