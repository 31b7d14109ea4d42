"""A converted multimodal checkpoint, and an export of it, read by transformers: the same tokens, the same logits."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.model.test_parity import CPU, Run
from tests.weights.conftest import GgufRecipe
from tests.weights.pictures import png
from tests.weights.reference import their_inputs
from tests.weights.vision_files import SPARE

from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.export import load_for_export, write_checkpoint
from mezzo.prompt.encoder import EncodedPrompt
from mezzo.prompt.load import load_encoder
from mezzo.prompt.parts import Attachments, ImagePart
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.weights import CheckpointFolder, SilentProgress, companion_files
from mezzo.weights.convert import Origin, convert_gguf

pytestmark = pytest.mark.slow

PNG = png(150, 90, drawn=True)
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": "A picture."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "text", "text": "\nthis?"}],
    },
]


def export(source: Path, target: Path) -> Path:
    network = load_for_export(source, "float32")
    write_checkpoint(network, target, source=source, companions=companion_files(source))
    return target


@pytest.fixture
def tiny(make_gguf: Callable[..., Path], make_vision: Callable[..., Any], tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    # Sums of 64 products stay near 1: with larger numbers attention is a choice of one, and rounding a decision.
    tensors = {
        name: (random.standard_normal(shape) * 0.15 + (len(shape) == 1)).astype(np.float32)
        for name, shape in GgufRecipe(spare=SPARE).shapes().items()
    }
    convert_gguf(
        make_gguf(spare=SPARE, tensors=tensors, metadata={"llama.context_length": 256}),
        tmp_path / "tiny",
        origin=Origin("tiny.gguf", "0" * 64),
        progress=SilentProgress(),
        vision=make_vision(),
    )
    return tmp_path / "tiny"


def our_prompt(folder: Path, messages: list[dict[str, Any]] = MESSAGES) -> EncodedPrompt:
    """Return mezzo's prompt for messages whose images are all PNG."""
    wire, places = [], {}
    for i, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            for k, chunk in enumerate(content):
                if chunk["type"] == "image":
                    places[i, k] = (ImagePart(PNG, f"messages[{i}].content[{k}]"),)
            content = [
                {"type": "image_url", "image_url": "data:"} if chunk["type"] == "image" else chunk
                for chunk in content
            ]
        wire.append(message | {"content": content})
    request = ChatCompletionRequest.model_validate({"model": "nano", "messages": wire})
    return load_encoder(folder).encode(request, Attachments(places))


def our_logits(folder: Path, prompt: EncodedPrompt) -> torch.Tensor:
    """Return the logits of every token of the prompt, in float32."""
    network = load_network(folder, ModelConfig.from_folder(folder), dtype=torch.float32, device=CPU)
    assert network.vision is not None
    ids = torch.tensor(prompt.token_ids)
    with torch.inference_mode():
        images = network.vision([torch.from_numpy(placed.image.pixels) for placed in prompt.images])
    return Run(network.decoder).step(
        {0: ids},
        image_embeddings=torch.cat(images),
        image_rows=(ids == network.config.vision.image_token_id).nonzero()[:, 0],  # type: ignore[union-attr]
    )


def assert_the_same(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, Mistral3ForConditionalGeneration

    prompt, inputs = our_prompt(folder), their_inputs(folder, MESSAGES, Image.open(io.BytesIO(PNG)))
    assert prompt.token_ids == inputs["input_ids"][0].tolist()
    reference, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert isinstance(reference, Mistral3ForConditionalGeneration)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.inference_mode():
        theirs = reference.eval()(**inputs).logits[0]
    ours = our_logits(folder, prompt)
    assert theirs.std() > 0.1
    # Of the largest logit, about 30 in nano: thirty layers of float32 sums in another order.
    tolerance = 1e-5 * theirs.abs().max()
    assert (ours - theirs).abs().max() < tolerance
    # The picture has a part in it: another one, of the same size, gives other logits.
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(-1)}
    with torch.inference_mode():
        assert (reference(**other).logits[0] - theirs).abs().max() > 100 * tolerance


def test_tiny(tiny: Path, tmp_path: Path) -> None:
    assert_the_same(tiny)
    assert_the_same(export(tiny, tmp_path / "exported"))


def test_nano(nano_folder: CheckpointFolder) -> None:
    assert_the_same(nano_folder.path)


def test_nano_exported(nano_folder: CheckpointFolder, tmp_path: Path) -> None:
    assert_the_same(export(nano_folder.path, tmp_path / "exported"))


@pytest.mark.parametrize("name", ["tiny", "nano_folder"])
def test_their_processor_makes_our_prompts(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """Of an export, with and without images; where torchvision is installed, which PixtralProcessor needs."""
    pytest.importorskip("torchvision")
    from transformers import AutoProcessor

    given = request.getfixturevalue(name)
    folder = export(Path(getattr(given, "path", given)), tmp_path / "exported")
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.open(io.BytesIO(PNG))
    texts = [
        [{"role": "user", "content": "Hello"}],
        [{"role": "user", "content": [MESSAGES[0]["content"][1]]}],
    ]
    for messages in [MESSAGES, *texts]:
        theirs = [
            m
            | {
                "content": m["content"]
                if isinstance(m["content"], str)
                else [c | {"image": image} if c["type"] == "image" else c for c in m["content"]]
            }
            for m in messages
        ]
        made = processor.apply_chat_template(
            theirs, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        prompt = our_prompt(folder, messages)
        assert made["input_ids"][0].tolist() == prompt.token_ids
        sizes = [np.shape(placed.image.pixels)[:2] for placed in prompt.images]
        assert [tuple(size) for size in made.get("image_sizes", torch.empty(0)).tolist()] == sizes
