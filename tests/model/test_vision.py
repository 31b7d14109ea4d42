"""The vision encoder on its own: an encoding put down and taken up, images together and alone, counts of operations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.projector import squares
from mezzo.model.rope import rotate
from mezzo.model.vision import Vision, attend_within_images, rotary_angles
from mezzo.model.vision_config import VisionConfig
from tests.tiny import CPU

CONFIG = VisionConfig(
    hidden_size=32, image_size=64, patch_size=4, intermediate_size=56, num_hidden_layers=4, num_attention_heads=2,
    spatial_merge_size=2, image_token_id=1, projector_norm=True, patch_merger=True, projector_bias=True,
)  # fmt: skip
SHAPES = [(16, 24), (8, 8), (24, 16), (32, 8), (8, 8)]


def make_vision(config: VisionConfig = CONFIG, dtype: torch.dtype = torch.float32) -> Vision:
    vision = Vision(config, 48, dtype).requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in vision.named_parameters():
        scale = 1.0 if parameter.ndim == 1 else 1.5 / math.sqrt(parameter[0].numel())
        shift = 1.0 if "norm" in name or "ln_pre" in name else 0.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + shift)
    return vision


def make_images(shapes: list[tuple[int, int]] = SHAPES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(256, (*shape, 3), generator=generator, dtype=torch.uint8) for shape in shapes]


def all_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


class TestResuming:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("num_layers", [1, 3, 4, 99])
    def test_gives_the_same_bits_as_one_go(self, num_layers: int, dtype: torch.dtype) -> None:
        vision, images = make_vision(dtype=dtype), make_images()
        encoding = vision.begin(images)
        answers = [vision.advance(encoding, num_layers)]
        while not answers[-1]:
            answers.append(vision.advance(encoding, num_layers))
        assert len(answers) == -(-4 // num_layers)
        assert all_equal(vision.finish(encoding), vision(images))

    def test_two_encodings_on_their_way_do_not_touch(self) -> None:
        vision, images = make_vision(), make_images()
        one, other = vision.begin(images[:2]), vision.begin(images[2:])
        while not vision.advance(one, 1) & vision.advance(other, 1):
            pass
        assert all_equal(vision.finish(one) + vision.finish(other), vision(images[:2]) + vision(images[2:]))

    def test_no_layers_do_nothing(self) -> None:
        vision = make_vision()
        encoding = vision.begin(make_images())
        before = encoding.hidden
        assert not vision.advance(encoding, 0)
        assert encoding.hidden is before

    def test_an_encoding_that_is_not_done_has_no_embeddings(self) -> None:
        vision = make_vision()
        encoding = vision.begin(make_images())
        vision.advance(encoding, 3)
        with pytest.raises(AssertionError, match="not done"):
            vision.finish(encoding)


class TestTogether:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
    def test_an_image_is_what_it_is_alone(self, dtype: torch.dtype, tolerance: float) -> None:
        """But for the order of sums, on embeddings of standard deviation 2.

        Not to the bit: for few rows the CPU's matrix library splits the long sums of the merger otherwise.
        """
        vision, images = make_vision(dtype=dtype), make_images()
        together = vision(images)
        assert [part.shape for part in together] == [(6, 48), (1, 48), (6, 48), (4, 48), (1, 48)]
        assert all(part.dtype is torch.float32 for part in together)
        for part, image in zip(together, images, strict=True):
            torch.testing.assert_close(part, vision([image])[0], rtol=0, atol=tolerance)
        assert torch.cat(together).std() > 1, "degenerate weights"

    def test_embeddings_come_in_the_order_of_the_images(self) -> None:
        vision, images = make_vision(), make_images()
        assert all_equal(vision(images)[::-1], vision(images[::-1]))

    def test_equally_large_images_share_a_call_whatever_their_shapes(self) -> None:
        shapes = [(1, 4), (2, 2), (4, 1), (2, 3)]
        q, k, v = torch.randn(3, 18, 2, 8, generator=torch.Generator().manual_seed(5)).unbind()
        counts = [4, 4, 4, 6]
        alone = [
            F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part)).transpose(0, 1).flatten(1)
            for part in zip(q.split(counts), k.split(counts), v.split(counts), strict=True)
        ]
        torch.testing.assert_close(attend_within_images(q, k, v, shapes), torch.cat(alone))


class TestWhatIsRefused:
    @pytest.mark.parametrize("shape", [(12, 8, 3), (8, 12, 3), (7, 8, 3), (0, 8, 3), (8, 0, 3)])
    def test_edges_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="multiples of 8, not"):
            make_vision().begin([torch.zeros(shape, dtype=torch.uint8)])

    @pytest.mark.parametrize(
        "image",
        [torch.zeros(8, 8, 3), torch.zeros(8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8)],
        ids=["floats", "grey", "channels first"],
    )
    def test_tensors_that_are_no_images(self, image: torch.Tensor) -> None:
        with pytest.raises(ValueError, match="an image is uint8"):
            make_vision().begin([image])


def test_frequencies_turn_with_row_and_column_in_turn() -> None:
    """A head of 8 numbers, theta 10,000: frequencies 1, 0.1, 0.01, 0.001; the patch in row 1 and column 2 of three."""
    config = VisionConfig(
        hidden_size=8, image_size=8, patch_size=1, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_token_id=0,
    )  # fmt: skip
    cos, sin = rotary_angles([(2, 3)], config, CPU)
    angles = torch.tensor([1 * 1.0, 1 * 0.01, 2 * 0.1, 2 * 0.001])
    ones = torch.zeros(6, 1, 8)
    ones[..., :4] = 1
    turned = rotate(ones, cos, sin)[5, 0]
    torch.testing.assert_close(turned, torch.cat((angles.cos(), angles.sin())))


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_squares_are_laid_out_as_unfold_does(edge: int) -> None:
    """The order that the columns of a merger's matrix were trained in."""
    rows, columns = 2 * edge, 4 * edge
    patches = torch.randn(rows * columns, 5, generator=torch.Generator().manual_seed(6))
    grid = patches.view(rows, columns, 5).permute(2, 0, 1)[None]
    assert torch.equal(squares(patches, (rows, columns), edge), F.unfold(grid, edge, stride=edge)[0].t())


class TestOperations:
    def test_of_an_encoder_layer(self) -> None:
        """Counted by PyTorch, on meta tensors: nothing is computed, and no kernel is fused that it could not see."""
        with torch.device("meta"):
            vision = Vision(CONFIG, 48, torch.bfloat16)
            image = torch.empty(32, 24, 3, dtype=torch.uint8)
            encoding = vision.begin([image])
            with FlopCounterMode(display=False) as counter:
                vision.advance(encoding, 1)
        assert vision.config.layer_flops(48) == counter.get_total_flops()

    @pytest.mark.parametrize("edge", [1, 2])
    def test_before_the_first_layer_and_after_the_last(self, edge: int) -> None:
        config = replace(CONFIG, spatial_merge_size=edge, patch_merger=edge > 1)
        with torch.device("meta"):
            vision = Vision(config, 48, torch.bfloat16)
            image = torch.empty(32, 24, 3, dtype=torch.uint8)
            with FlopCounterMode(display=False) as counter:
                encoding = vision.begin([image])
                encoding.next_layer = config.num_hidden_layers
                vision.finish(encoding)
        assert config.ends_flops(48, 48) == counter.get_total_flops()

    def test_of_a_token_in_the_decoder(self) -> None:
        config = ModelConfig(
            dim=48, n_layers=3, head_dim=16, hidden_dim=100, n_heads=4, n_kv_heads=2, vocab_size=99
        )
        matrices = [p for p in Decoder(config, torch.bfloat16).layers.parameters() if p.ndim == 2]
        assert config.flops_per_token == 2 * sum(p.numel() for p in matrices)
