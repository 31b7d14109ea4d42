"""What an encoder starts from: filters that everything that reads letters ends up with, put in by hand.

A network that is given pixels finds frequencies and edges by itself, after many steps. Here the patch
embedding starts as cosines, and the first feed-forward layer as edge and line detectors all over the patch, whose
responses the layer's output keeps as well as its width allows. Everything is trained from there.
Why: docs/decisions/0017. Source of the detectors: Gabor filters (Daugman, 1985); of keeping their responses by
principal components: Coates and Ng, "Learning Feature Representations with K-means" (2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzo.model.vision import Vision, VisionBlock, normalize
from mezzo.model.vision_config import VisionConfig

_BUSY_VARIANCE = 0.02  # of a patch's normalised pixels: below, there is nothing on the paper
_RESPONSE = 1.5  # standard deviation of a detector's response: where SiLU is neither linear nor flat
_WHITENING = 0.05  # of the 40th largest variance: weaker components are noise rather than letters


def frequency_filters(config: VisionConfig) -> Tensor:
    """Return the patch embedding that training starts from, (hidden_size, 3, patch_size, patch_size) float32.

    Cosines of rising frequency (the basis of JPEG) of brightness, and of low frequency of two colour differences. The
    brightness of the paper is a hundred times what tells an e from an o: random filters all see the paper, and the norm
    that follows them leaves of the letter almost nothing. Here it has one filter of many, and higher frequencies are
    amplified as much as pictures lack them (their spectrum falls as 1 / f).
    """
    edge, count = config.patch_size, config.hidden_size
    place = (torch.arange(edge) + 0.5) / edge
    waves = torch.cos(torch.pi * torch.arange(edge)[:, None] * place)  # (frequency, pixel)
    order = sorted(
        ((u, v) for u in range(edge) for v in range(edge)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f)
    )
    colours = torch.tensor([(1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0)]) / 3
    num_chroma = min(2 * 12, count // 8)
    filters = []
    for number in range(count):
        is_chroma = number < num_chroma
        u, v = order[number // 2 if is_chroma else (number - num_chroma) % len(order)]
        frequency = (u**2 + v**2) ** 0.5
        gain = 0.5 if not frequency and not is_chroma else (1 + frequency)
        wave = torch.outer(waves[u], waves[v]) * gain / edge
        filters.append(colours[1 + number % 2 if is_chroma else 0][:, None, None] * wave)
    stacked = torch.stack(filters)
    return stacked * (1 + 0.02 * torch.randn_like(stacked))  # no two that are alike


@torch.no_grad()
def start_from_edges(vision: Vision, pixels: Tensor) -> None:
    """Set the first feed-forward layer to edge and line detectors; `pixels` are some pictures with letters on them.

    Shapes: pixels uint8 (pictures, height, width, 3), edges multiples of the patch size. As many detectors as the layer
    has hidden units, the rest as it was; a detector's two rows are alike, so that the gated unit responds with about
    the square of an edge of one direction and with nothing to its opposite. The output's rows are the principal
    components of all responses, whitened, in a random rotation.
    """
    config, encoder = vision.config, vision.encoder
    generator = torch.Generator().manual_seed(0)
    detectors = torch.stack(list(_detectors(config.patch_size)))
    detectors = detectors[torch.randperm(len(detectors), generator=generator)][: config.intermediate_size]
    embedding = encoder.patch_conv.weight.flatten(1)  # (hidden_size, pixels)
    wanted = (detectors[:, None].expand(-1, 3, -1, -1) / 3).flatten(1).to(embedding)
    # In double precision, here and below: in single, two runs end apart where the memory is aligned otherwise.
    rows = torch.linalg.lstsq(embedding.T.double(), wanted.T.double()).solution.T.to(embedding)
    patches = _busy_patches(pixels, config).to(embedding)
    first = encoder.layers[0]
    assert isinstance(first, VisionBlock)
    seen = first.ffn_norm(encoder.ln_pre(encoder.patch_conv(patches)))
    rows *= _RESPONSE / (seen @ rows.T).std(0).clamp_min(1e-3)[:, None]
    feed_forward, width = first.feed_forward, config.intermediate_size
    feed_forward.w13.weight[: len(rows)] = rows
    feed_forward.w13.weight[width : width + len(rows)] = rows
    gate, up = (seen @ feed_forward.w13.weight.T).chunk(2, dim=-1)
    responses = F.silu(gate) * up
    feed_forward.w2.weight.copy_(_components(responses, config.hidden_size, generator))


def _components(responses: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """responses (patches, width) -> (count, width): rotated, whitened components whose outputs have a size of 1."""
    of_double = responses.double()
    variances, vectors = torch.linalg.eigh(of_double.T @ of_double / len(responses))
    variances, vectors = variances.flip(0)[:count], vectors.flip(1)[:, :count]
    floor = _WHITENING * variances[min(40, len(variances) - 1)]
    components = (vectors / (variances.clamp_min(0) + floor).sqrt()).T
    rotation, _ = torch.linalg.qr(torch.randn(count, count, generator=generator))
    rows = (rotation.to(components)[:, : len(components)] @ components).to(responses)
    scaled: Tensor = rows / (responses @ rows.T).std()
    return scaled


def _busy_patches(pixels: Tensor, config: VisionConfig) -> Tensor:
    """Return the patches that have something on them, (patches, 3 * patch_size ** 2) float32."""
    pictures, height, width, _ = pixels.shape
    size = config.patch_size
    grid = normalize(pixels, config).view(pictures, height // size, size, width // size, size, -1)
    patches = grid.permute(0, 1, 3, 5, 2, 4).reshape(-1, config.num_channels * size * size)
    return patches[patches.var(-1) > _BUSY_VARIANCE]


def _detectors(edge: int) -> Iterator[Tensor]:
    """Yield filters of (edge, edge): edges in eight directions, dark and bright lines in four, in two sizes."""
    for per_side, wavelength, of_lines in (
        (7, 5.0, False),
        (5, 5.0, True),
        (4, 10.0, False),
        (4, 10.0, True),
    ):
        middles = [(number + 0.5) * edge / per_side for number in range(per_side)]
        for y in middles:
            for x in middles:
                for direction in range(8):
                    if of_lines:
                        turn, phase = math.pi * (direction // 2) / 4, math.pi * (direction % 2)
                    else:
                        turn, phase = math.pi * direction / 4, -math.pi / 2
                    yield _gabor(edge, x, y, wavelength * edge / 16, turn, phase)


def _gabor(edge: int, x: float, y: float, wavelength: float, turn: float, phase: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(edge) + 0.5, torch.arange(edge) + 0.5, indexing="ij")
    along = (columns - x) * math.cos(turn) + (rows - y) * math.sin(turn)
    across = (rows - y) * math.cos(turn) - (columns - x) * math.sin(turn)
    sigma = 0.4 * wavelength
    window = torch.exp(-(along**2) / (2 * sigma**2) - across**2 / (2 * (1.3 * sigma) ** 2))
    wave = window * torch.cos(2 * math.pi * along / wavelength + phase)
    wave = wave - window * (wave.sum() / window.sum())  # flat paper leaves it silent
    unit: Tensor = wave / wave.norm().clamp_min(1e-6)
    return unit
