"""FP8 numbers against transformers' dequantisation, bit for bit."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from mezzo.model.fp8 import FP8, Dequantizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("block_size", [None, (128, 128), (64, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float32])
def test_is_the_reference_s(
    block_size: tuple[int, int] | None, dtype: torch.dtype, scale_dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(256, (256, 384), generator=generator, dtype=torch.uint8)
    weight = codes.masked_fill_(codes % 128 == 127, 0).view(FP8)  # 127 and 255 are NaN
    high, wide = block_size or weight.shape
    scale = torch.rand(256 // high, 384 // wide, generator=generator).to(scale_dtype) * 0.01
    theirs = Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=dtype)
    ours = Dequantizer().dequantize(weight, scale.float(), first_row=0, block_size=block_size, dtype=dtype)
    assert torch.equal(ours, theirs)
