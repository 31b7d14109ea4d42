"""What is trained: vision encoder and projector, the decoder's low-rank update, and the scaffolding around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mezzo.model.decoder import Decoder
from mezzo.model.vision import Encoding, Vision, normalize, rotary_angles
from mezzo.model.vision_config import VisionConfig
from mezzo.train.codes import CellCodes
from mezzo.train.filters import frequency_filters
from mezzo.train.heads import ReadingHeads
from mezzo.train.lora import add_lora


class VisionHalf(nn.Module):
    """All trained parameters. The frozen decoder is beside it, not in it.

    vision   shipped            codes   the target of the projector's output, not shipped
    lora     shipped            heads   the encoder's first lesson, not shipped
    """

    def __init__(self, config: VisionConfig, decoder: Decoder, rank: int) -> None:
        super().__init__()
        dim = decoder.config.dim
        embeddings = decoder.tok_embeddings.weight
        self.embedding_rms = float(embeddings.detach().float().square().mean().sqrt())
        self.vision = Vision(config, dim, torch.float32)
        initialize(self.vision, self.embedding_rms)
        self.heads = ReadingHeads(config.hidden_size, dim, config.spatial_merge_size)
        self.codes = CellCodes(dim, config.spatial_merge_size)
        self.lora = nn.ParameterDict(
            {name.replace(".", "/"): parameter for name, parameter in add_lora(decoder, rank).items()}
        )


def initialize(vision: Vision, output_rms: float) -> None:
    """Draw the initial weights: small enough for training in float32 and bfloat16 alike, outputs like embeddings."""
    num_layers = vision.config.num_hidden_layers
    for name, parameter in vision.named_parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.ones_(parameter)
            continue
        std = 0.7 / parameter[0].numel() ** 0.5
        if name.endswith(("wo.weight", "w2.weight")):  # each adds to the residual stream
            std /= (2 * num_layers) ** 0.5
        nn.init.normal_(parameter, std=std)
    vision.encoder.patch_conv.weight.data.copy_(frequency_filters(vision.config))
    width = vision.projector.w_out.weight.shape[1]
    nn.init.normal_(vision.projector.w_out.weight, std=1.5 * output_rms / width**0.5)


def encode(vision: Vision, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Encode pictures of one size, as `Vision.forward` does, without a Python step for each of hundreds of them.

    Shapes: pixels uint8 (pictures, height, width, 3). Returns the encoder's last layer (patches, hidden_size) and the
    projector's output (cells, dim), both float32, the pictures' one after the other.
    """
    encoder, config = vision.encoder, vision.config
    num_pictures, height, width, _ = pixels.shape
    size = config.patch_size
    rows, columns = height // size, width // size
    grid = normalize(pixels, config).view(num_pictures, rows, size, columns, size, -1)
    patches = grid.permute(0, 1, 3, 5, 2, 4).reshape(num_pictures * rows * columns, -1)
    cos, sin = (
        angles.repeat(num_pictures, 1, 1)
        for angles in rotary_angles([(rows, columns)], config, pixels.device)
    )
    shapes = [(rows, columns)] * num_pictures
    hidden = encoder.ln_pre(encoder.patch_conv(patches))
    encoding = Encoding(hidden, cos, sin, shapes, list(range(num_pictures)))
    encoder.advance(encoding, config.num_hidden_layers)
    # One above the other, pictures of one width are one picture to the projector: it looks at squares alone.
    (cells,) = vision.projector(encoding.hidden, [(num_pictures * rows, columns)])
    return encoding.hidden, cells
