"""The network's eyes: Pixtral's vision encoder, and the projector that makes embeddings of what it sees.

Images of any shape are encoded together without padding: their patches stand in one flat dimension, and each image
attends to itself alone. An encoding can be put down after any layer and taken up again, so that a large image does
not hold up the streams that are being generated.

Number formats as in the decoder: matrices in the model's dtype; residual stream, norms and rotary embedding float32.
Source: Pixtral 12B (arXiv 2410.07073), section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzo.model.activation import ACTIVATIONS
from mezzo.model.decoder import FeedForward, RMSNorm
from mezzo.model.linear import Linear, pad_rows
from mezzo.model.projector import Projector
from mezzo.model.rope import rotate
from mezzo.model.vision_config import VisionConfig

_NORM_EPS = 1e-5  # of every norm in the encoder, whatever the decoder has; no configuration names it


@dataclass
class Encoding:
    """Images on their way through the encoder, owned and changed by `Vision`.

    Images are sorted by their number of patches, so that those of one size follow each other and attend in one call.

    hidden       (patches, hidden_size) float32, the residual stream after `next_layer` layers
    cos, sin     (patches, 1, head_dim) float32, as `rotate` takes them
    shapes       rows and columns of patches of each image, in this order
    order        the place of each of these images in the list that was given
    """

    hidden: Tensor
    cos: Tensor
    sin: Tensor
    shapes: list[tuple[int, int]]
    order: list[int]
    next_layer: int = 0


class PatchConv(nn.Module):
    """Embeds patches: a convolution whose stride is its width, computed as one matrix product."""

    def __init__(self, config: VisionConfig, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (config.hidden_size, config.num_channels, config.patch_size, config.patch_size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype))

    def forward(self, patches: Tensor) -> Tensor:
        """patches (patches, channels * patch_size ** 2) float32 -> (patches, hidden_size) float32."""
        rows = pad_rows(patches.to(self.weight.dtype))
        return F.linear(rows, self.weight.flatten(1))[: patches.shape[0]].float()


class VisionAttention(nn.Module):
    """Attention of every patch of an image to every patch of it."""

    def __init__(self, config: VisionConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.wqkv = Linear(config.hidden_size, 3 * config.hidden_size, dtype)
        self.wo = Linear(config.hidden_size, config.hidden_size, dtype)

    def forward(self, hidden: Tensor, encoding: Encoding) -> Tensor:
        """hidden (patches, hidden_size) -> the same shape."""
        heads = self.wqkv(hidden).view(hidden.shape[0], -1, self.head_dim)
        num_heads = heads.shape[1] // 3
        rotated = rotate(heads[:, : 2 * num_heads], encoding.cos, encoding.sin)
        q, k, v = rotated[:, :num_heads], rotated[:, num_heads:], heads[:, 2 * num_heads :]
        return self.wo(attend_within_images(q, k, v, encoding.shapes))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """One encoder layer: attention, then feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: VisionConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, _NORM_EPS, dtype)
        self.attention = VisionAttention(config, dtype)
        self.ffn_norm = RMSNorm(config.hidden_size, _NORM_EPS, dtype)
        self.feed_forward = FeedForward(
            config.hidden_size, config.intermediate_size, dtype, ACTIVATIONS[config.hidden_act]
        )

    def forward(self, encoding: Encoding) -> Tensor:
        """Return the residual stream after this layer, (patches, hidden_size) float32."""
        hidden = encoding.hidden + self.attention(self.attention_norm(encoding.hidden), encoding)
        return hidden + self.feed_forward(self.ffn_norm(hidden))  # type: ignore[no-any-return]


class VisionEncoder(nn.Module):
    """Patches in, patches out: embedding, norm, layers."""

    def __init__(self, config: VisionConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.patch_conv = PatchConv(config, dtype)
        self.ln_pre = RMSNorm(config.hidden_size, _NORM_EPS, torch.float32)
        self.layers = nn.ModuleList(VisionBlock(config, dtype) for _ in range(config.num_hidden_layers))

    @property
    def device(self) -> torch.device:
        return self.patch_conv.weight.device

    def begin(self, images: list[Tensor]) -> Encoding:
        """Embed the patches of some images; see `Vision.begin`."""
        for image in images:
            self._check(image)
        size = self.config.patch_size
        given = [(image.shape[0] // size, image.shape[1] // size) for image in images]
        order = sorted(range(len(images)), key=lambda i: given[i][0] * given[i][1])
        shapes = [given[i] for i in order]
        patches = torch.cat([self._patches(images[i]) for i in order])
        cos, sin = rotary_angles(shapes, self.config, self.device)
        return Encoding(self.ln_pre(self.patch_conv(patches)), cos, sin, shapes, order)

    def advance(self, encoding: Encoding, num_layers: int) -> bool:
        """Run up to `num_layers` further layers; see `Vision.advance`."""
        end = min(encoding.next_layer + num_layers, len(self.layers))
        for layer in self.layers[encoding.next_layer : end]:
            encoding.hidden = layer(encoding)
        encoding.next_layer = end
        return end == len(self.layers)

    def _check(self, image: Tensor) -> None:
        edge = self.config.merged_patch_size
        if image.dtype is not torch.uint8 or image.ndim != 3 or image.shape[2] != self.config.num_channels:
            raise ValueError(f"an image is uint8 (height, width, 3), not {image.dtype} {tuple(image.shape)}")
        if min(image.shape) < 1 or image.shape[0] % edge or image.shape[1] % edge:
            raise ValueError(f"the edges of an image are multiples of {edge}, not {tuple(image.shape[:2])}")

    def _patches(self, image: Tensor) -> Tensor:
        """image (height, width, channels) uint8 -> (patches, channels * patch_size ** 2) float32, normalised."""
        size = self.config.patch_size
        pixels = normalize(image.to(self.device), self.config)
        grid = pixels.view(image.shape[0] // size, size, image.shape[1] // size, size, -1)
        return grid.permute(0, 2, 4, 1, 3).reshape(-1, self.config.num_channels * size * size)


class Vision(nn.Module):
    """Images in, embeddings for the decoder out, in one go or layer by layer."""

    def __init__(self, config: VisionConfig, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionEncoder(config, dtype)
        self.projector = Projector(config, dim, dtype)

    def begin(self, images: list[Tensor]) -> Encoding:
        """Start to encode some images, at least one.

        Images are uint8 (height, width, 3) RGB, on any device; both edges are multiples of `merged_patch_size`.
        Raises: ValueError for other tensors.
        """
        return self.encoder.begin(images)

    def advance(self, encoding: Encoding, num_layers: int) -> bool:
        """Run up to `num_layers` further layers. Returns whether all are done."""
        return self.encoder.advance(encoding, num_layers)

    def finish(self, encoding: Encoding) -> list[Tensor]:
        """Project an encoding that has run through all layers.

        Returns for each image, as they were given to `begin`, its tokens (rows * columns, dim) float32: merged patches
        in row-major order.
        """
        assert encoding.next_layer == self.config.num_hidden_layers, "an encoding that is not done"
        projected = self.projector(encoding.hidden, encoding.shapes)
        places = dict(zip(encoding.order, projected, strict=True))
        return [places[i] for i in range(len(projected))]

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        """Encode images in one go: `begin`, all layers, `finish`."""
        encoding = self.begin(images)
        self.advance(encoding, self.config.num_hidden_layers)
        return self.finish(encoding)


def normalize(image: Tensor, config: VisionConfig) -> Tensor:
    """image (height, width, 3) uint8 -> (height, width, 3) float32 of mean 0 and variance 1 over usual images."""
    mean = torch.tensor(config.image_mean, device=image.device)
    std = torch.tensor(config.image_std, device=image.device)
    return (image.to(torch.float32) * (1 / 255) - mean) / std


def rotary_angles(
    shapes: list[tuple[int, int]], config: VisionConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cos and sin for the patches of some images, each (patches, 1, head_dim) float32, as `rotate` takes them.

    Of the frequencies of a head, those at even places turn with the patch's row and those at odd ones with its column;
    the rows' come first. With head_dim 8 the pairs turn by row * f0, row * f2, column * f1, column * f3.
    Source: Pixtral 12B (arXiv 2410.07073), section 2.1, RoPE-2D.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    grids = [torch.cartesian_prod(*(torch.arange(n, device=device) for n in shape)) for shape in shapes]
    positions = torch.cat(grids).to(torch.float32)
    angles = torch.cat((positions[:, :1] * frequencies[0::2], positions[:, 1:] * frequencies[1::2]), dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]


def attend_within_images(q: Tensor, k: Tensor, v: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
    """Attend, each image to itself; images with equally many patches that follow each other share a call.

    Shapes: q, k, v (patches, heads, head_dim); the result (patches, heads * head_dim). No mask is made: that of all
    patches together would have their number squared.
    """
    outputs = []
    start = 0
    for num_patches, group in groupby(rows * columns for rows, columns in shapes):
        num_images = len(list(group))
        rows = slice(start, start + num_images * num_patches)
        start = rows.stop
        queries, keys, values = (
            x[rows].view(num_images, num_patches, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        outputs.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
