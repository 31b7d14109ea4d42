"""The products: rows that do not depend on their neighbours, logits that are exact where it matters."""

from __future__ import annotations

import pytest
import torch

from mezzo.model.linear import Head, Linear


def random_(module: Linear, seed: int) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    return module.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_is_the_row_among_others(dtype: torch.dtype) -> None:
    linear = random_(Linear(1536, 576, dtype), 1)
    x = torch.randn(9, 1536, generator=torch.Generator().manual_seed(2)).to(dtype)
    together = linear(x)
    for rows in (1, 2, 3, 5):
        assert torch.equal(linear(x[:rows]), together[:rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_bias_is_added_to_every_row(dtype: torch.dtype, rows: int) -> None:
    linear = random_(Linear(64, 48, dtype, bias=True), 1)
    assert linear.bias is not None
    linear.bias.copy_(torch.arange(48))
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = x.double() @ linear.weight.double().t() + linear.bias.double()
    torch.testing.assert_close(linear(x), exact.to(dtype))


def test_the_largest_logits_are_those_of_a_float32_product() -> None:
    head = random_(Head(576, 5000, torch.bfloat16), 3)
    x = torch.randn(3, 576, generator=torch.Generator().manual_seed(4)) * 2
    exact = x @ head.weight.float().t()
    logits = head(x)
    assert logits.dtype is torch.float32
    best = exact.topk(32, dim=-1).indices
    torch.testing.assert_close(logits.gather(-1, best), exact.gather(-1, best), rtol=1e-5, atol=1e-4)
    # The rest are rounded twice, the input and the result: 8 bits each.
    torch.testing.assert_close(logits, exact, rtol=1 / 64, atol=0.5)
    assert (logits != exact).float().mean() > 0.5, "everything is exact: what is this test about?"


def test_logits_of_a_float32_model_are_exact_throughout() -> None:
    head = random_(Head(64, 300, torch.float32), 5)
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(head(x), x @ head.weight.t(), rtol=1e-5, atol=1e-5)


def test_a_vocabulary_smaller_than_what_is_computed_again() -> None:
    head = random_(Head(32, 10, torch.bfloat16), 7)
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(head(x), x @ head.weight.float().t(), rtol=1e-5, atol=1e-5)
