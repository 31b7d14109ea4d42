"""Checkpoints small enough to be taught in a test, with a chat format, and data files to teach them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mezzo.engine.config import Vocabulary
from mezzo.engine.messages import AddRequest, ImageInput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.prompt.load import load_encoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.train.documents.files import load_attachments
from mezzo.train.documents.run import DocumentsRun, Options
from tests import tiny
from tests.prompt.small import BYTE_LEVEL

# Control tokens of the tokenizer: <s> 0, </s> 1, <|im_start|> 2, <|im_end|> 3, [INST] 4, [/INST] 5. The last two and
# <s> stand for images, ends of their rows, and their ends.
IM_START, IM_END, IMAGE = 2, 3, 4
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}[INST]{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {"vocab_size": 272, "eos_token_id": IM_END}
LINES = [
    ("Capital of France?", "Paris, of course."),
    ("Capital of Peru?", "That is Lima."),
    ("What is mezzo?", "A server."),
]


def chat_checkpoint(folder: Path, *, sees: bool = False, template: str = TEMPLATE) -> Path:
    """Write a random checkpoint that chats, and sees pictures if it is to."""
    if sees:
        text = {**tiny.MULTIMODAL_CONFIG["text_config"], **TEXT}
        changes = {**tiny.MULTIMODAL_CONFIG, "text_config": text, "image_token_index": IMAGE}
        tokens = {"image_break_token": "[/INST]", "image_end_token": "<s>"}
        tiny.write_checkpoint(folder, **changes)
        (folder / "processor_config.json").write_text(json.dumps(tokens))
    else:
        tiny.write_checkpoint(folder, **TEXT)
    (folder / "tokenizer.json").write_text(json.dumps(BYTE_LEVEL))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": IM_END}))
    return folder


def png(colour: tuple[int, int, int], size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def about_picture(url: str, question: str = "Colour?") -> dict[str, Any]:
    return user([{"type": "image_url", "image_url": url}, {"type": "text", "text": question}])


def write_lines(path: Path, *conversations: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))
    return path


def three_lines(path: Path) -> Path:
    return write_lines(path, *([user(question), said(answer)] for question, answer in LINES))


def documents_run(folder: Path, data: Path, weights: Path, **options: Any) -> DocumentsRun:
    """Return a run that overfits, unless options say otherwise."""
    chosen = {
        "rank": 8, "epochs": 60, "learning_rate": 1e-2, "batch_tokens": 256, "held_out": 0.0, "max_tokens": 256,
        **options,
    }  # fmt: skip
    dtype = chosen.pop("dtype", torch.float32)
    saves_memory = chosen.pop("saves_memory", False)
    return DocumentsRun(
        folder=folder,
        data=data,
        weights=weights,
        base=weights.name,
        options=Options(**chosen),
        device=tiny.CPU,
        dtype=dtype,
        saves_memory=saves_memory,
    )


def train(run: DocumentsRun) -> Path:
    return run.train(lambda line: None, lambda words: None)


def greedy(checkpoint: Path, messages: list[dict[str, Any]], base: Path) -> str:
    """Ask the engine, with the checkpoint's own prompts; paths of pictures are below `base`."""
    encoder = load_encoder(checkpoint)
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": messages})
    prompt = encoder.encode(request, load_attachments(request, base))
    images = tuple(
        ImageInput(
            key=placed.image.digest,
            start=placed.start,
            num_tokens=placed.num_tokens,
            height=placed.image.pixels.shape[0],
            width=placed.image.pixels.shape[1],
            pixels=placed.image.pixels.tobytes(),
        )
        for placed in prompt.images
    )
    vocabulary = Vocabulary(
        token_bytes=encoder.token_bytes(),
        eos_token_ids=encoder.eos_token_ids,
        marker_token_ids=encoder.marker_token_ids,
    )
    config = ModelConfig.from_folder(checkpoint)
    network = load_network(checkpoint, config, dtype=torch.float32, device=tiny.CPU)
    params = SamplingParams(temperature=0.0, max_tokens=40)
    asked = AddRequest(request_id="r", prompt_token_ids=prompt.token_ids, params=params, images=images)
    done = tiny.run(tiny.make_core(network, vocabulary=vocabulary), asked)
    assert done.reasons["r", 0] == "stop"
    return done.texts["r", 0]
