"""The CPU kernels, against the same arithmetic in float64, and against themselves in other batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mezzo.model.kernels.library import (
    Heads,
    Kernels,
    KernelsMissing,
    Layer,
    Layers,
    Matrix,
    Norm,
    StepRows,
    check_kernels,
)
from mezzo.model.kernels.packing import (
    QuantizedMatrix,
    interleave_gates,
    pack,
    pack_exactly,
    unpack,
)
from tests.model.quantized import of_four_bits

try:
    check_kernels()
except KernelsMissing as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    yield Kernels(2)
    Kernels(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor) -> Tensor:
    """Return x as the kernels see it: eight bits in groups of 32."""
    groups = x.double().unflatten(1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (groups / scale).round() * scale, 0).flatten(1)


def with_update(outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a matrix, and the two of an update of rank 64 that is a third of its size."""
    return normal(outputs, inputs, seed=1), normal(64, inputs, seed=3), normal(outputs, 64, seed=4) / 24


class TestPacking:
    def test_eight_bits_are_within_half_a_step(self) -> None:
        weight = normal(48, 96)
        found = unpack(pack(weight, 8))
        step = weight.unflatten(1, (-1, 32)).abs().amax(-1, keepdim=True) / 127
        error = (found - weight).unflatten(1, (-1, 32)).abs()
        assert (error <= step * 0.51 + step * 127 * 2**-11).all()  # the scale is float16

    def test_four_bits_of_weights_that_were_made_of_four_are_exact(self) -> None:
        weight = of_four_bits(32, 128)
        packed = pack_exactly(weight)
        assert packed.num_bits == 4
        torch.testing.assert_close(unpack(packed), weight, rtol=0, atol=1e-7)

    def test_other_weights_keep_eight(self) -> None:
        assert pack_exactly(normal(16, 64)).num_bits == 8

    @pytest.mark.parametrize("num_bits", [4, 8])
    def test_rows_that_fill_no_tile(self, num_bits: int) -> None:
        packed = pack(normal(21, 64), num_bits)
        assert (packed.num_outputs, packed.num_padded_outputs, packed.num_inputs) == (21, 32, 64)
        assert unpack(packed).shape == (21, 64)

    def test_many_rows_are_packed_in_parts(self) -> None:
        weight = normal(4096 + 32, 32)
        assert torch.equal(unpack(pack(weight, 8))[4090:], unpack(pack(weight[4080:], 8))[10:])

    @pytest.mark.parametrize("num_bits", [4, 8])
    @pytest.mark.parametrize("value", [math.inf, math.nan, 1e8])
    def test_what_float16_cannot_hold_is_refused(self, num_bits: int, value: float) -> None:
        weight = normal(16, 32)
        weight[3, 5] = value
        with pytest.raises(ValueError, match="finite"):
            pack(weight, num_bits)

    def test_inputs_must_be_whole_groups(self) -> None:
        with pytest.raises(ValueError, match="40 inputs"):
            pack(normal(16, 40), 8)


class TestLinear:
    @pytest.mark.parametrize("num_bits", [4, 8])
    @pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 200])
    def test_product(self, kernels: Kernels, num_bits: int, rows: int) -> None:
        packed, x = pack(normal(80, 192, seed=1), num_bits), normal(rows, 192, seed=2)
        expected = rounded(x) @ unpack(packed).double().T
        found = kernels.linear(x, Matrix(packed))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)

    @pytest.mark.parametrize("num_bits", [4, 8])
    def test_extreme_numbers_do_not_overflow(self, kernels: Kernels, num_bits: int) -> None:
        weight = torch.full((16, 2048), 1.0)
        weight[:, ::2] = -1.0 if num_bits == 8 else 1.0
        x = torch.full((5, 2048), -3.0)
        x[:, ::2] = 3.0
        weight[0] = 0
        weight[0, ::32] = 15.0
        packed = pack(weight, num_bits)
        expected = rounded(x) @ unpack(packed).double().T
        torch.testing.assert_close(kernels.linear(x, Matrix(packed)).double(), expected, rtol=1e-5, atol=1e-2)

    def test_zeros(self, kernels: Kernels) -> None:
        out = kernels.linear(torch.zeros(3, 64), Matrix(pack(normal(16, 64), 4)))
        assert torch.equal(out, torch.zeros(3, 16))

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
    def test_what_is_no_number_comes_out_as_none(self, kernels: Kernels, value: float) -> None:
        x = normal(5, 64)
        x[2, 40] = value
        out = kernels.linear(x, Matrix(pack(normal(32, 64), 8)))
        assert out[2].isnan().all()
        assert out[[0, 1, 3, 4]].isfinite().all()

    def test_no_rows(self, kernels: Kernels) -> None:
        assert kernels.linear(torch.empty(0, 64), Matrix(pack(normal(16, 64), 8))).shape == (0, 16)

    def test_of_normalised_inputs(self, kernels: Kernels) -> None:
        packed, x, weight = pack(normal(32, 96), 8), normal(6, 96, seed=1) * 7, 1 + 0.1 * normal(96, seed=2)
        normed = torch.nn.functional.rms_norm(x, (96,), weight, 1e-5)
        expected = rounded(normed) @ unpack(packed).double().T
        found = kernels.linear(x, Matrix(packed), Norm(weight, 1e-5))
        # A number at the edge of two steps may be rounded either way: the norm's last bit decides.
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05)
        assert (found - expected).abs().median() < 1e-5

    def test_added(self, kernels: Kernels) -> None:
        packed, x, target = Matrix(pack(normal(32, 96), 4)), normal(6, 96, seed=1), normal(6, 32, seed=2)
        expected = target + kernels.linear(x, packed)
        kernels.add_linear(target, x, packed)
        assert torch.equal(target, expected)

    def test_gated(self, kernels: Kernels) -> None:
        weight, x, norm = normal(2 * 64, 96), normal(9, 96, seed=1), Norm(torch.ones(96), 1e-5)
        gate, up = (kernels.linear(x, Matrix(pack(half, 8)), norm) for half in weight.chunk(2))
        found = kernels.gated_linear(x, Matrix(pack(interleave_gates(weight), 8)), norm)
        torch.testing.assert_close(found, torch.nn.functional.silu(gate) * up, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("rows", [1, 3, 4, 200])
    def test_with_an_update(self, kernels: Kernels, rows: int) -> None:
        base, down, up = (pack(w, bits) for w, bits in zip(with_update(80, 192), (4, 8, 8), strict=True))
        x = normal(rows, 192, seed=2)
        low = kernels.linear(x, Matrix(down))
        expected = kernels.linear(x, Matrix(base)) + kernels.linear(low, Matrix(up))
        assert torch.equal(kernels.linear(x, Matrix(base, (down, up))), expected)
        exactly = unpack(base).double() + unpack(up).double() @ unpack(down).double()
        unexplained = (expected - rounded(x) @ exactly.T).square().mean() / expected.var()
        assert unexplained < 1e-4  # what `down` makes of x is rounded once more

    def test_gated_with_an_update(self, kernels: Kernels) -> None:
        weight, down, up = with_update(2 * 64, 96)
        x, norm = normal(9, 96, seed=1), Norm(torch.ones(96), 1e-5)
        halves = zip(weight.chunk(2), up.chunk(2), strict=True)
        gate, other = (
            kernels.linear(x, Matrix(pack(w, 8), (pack(down, 8), pack(u, 8))), norm) for w, u in halves
        )
        whole = Matrix(pack(interleave_gates(weight), 8), (pack(down, 8), pack(interleave_gates(up), 8)))
        found = kernels.gated_linear(x, whole, norm)
        torch.testing.assert_close(found, torch.nn.functional.silu(gate) * other, rtol=1e-6, atol=1e-6)

    def test_an_update_of_another_shape_is_refused(self) -> None:
        base, down, up = (pack(w, 8) for w in with_update(80, 192))
        for update in [(up, down), (down, pack(normal(80, 32), 8)), (pack(normal(64, 96), 8), up)]:
            with pytest.raises(ValueError, match="does not fit"):
                Matrix(base, update)

    @pytest.mark.parametrize("num_bits", [4, 8])
    def test_embeddings_are_rows_of_the_matrix(self, kernels: Kernels, num_bits: int) -> None:
        packed = pack(normal(37, 64), num_bits)
        token_ids = torch.tensor([36, 0, 17, 17])
        assert torch.equal(kernels.embed(token_ids, Matrix(packed)), unpack(packed)[token_ids])


class TestSameBits:
    @pytest.mark.parametrize("has_update", [False, True])
    @pytest.mark.parametrize("num_bits", [4, 8])
    def test_in_any_batch_and_on_any_number_of_threads(self, num_bits: int, has_update: bool) -> None:
        weight, down, up = with_update(112, 576)
        update = (pack(down, 8), pack(up, 8)) if has_update else None
        matrix, norm = Matrix(pack(weight, num_bits), update), Norm(1 + 0.1 * normal(576, seed=3), 1e-5)
        x = normal(130, 576, seed=1)
        expected = Kernels(1).linear(x, matrix, norm)
        for num_threads in (1, 2, 3):
            kernels = Kernels(num_threads)
            for first, last in [(0, 1), (1, 3), (5, 8), (7, 11), (20, 29), (0, 130)]:
                assert torch.equal(kernels.linear(x[first:last], matrix, norm), expected[first:last])

    @pytest.mark.parametrize("num_bits", [4, 8])
    @pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
    def test_with_and_without_avx512(self, num_bits: int, rows: int) -> None:
        if not Kernels(2).uses_avx512:
            pytest.skip("needs AVX-512 with VNNI")
        matrix, x = Matrix(pack(normal(64, 320), num_bits)), normal(rows, 320, seed=1)
        assert torch.equal(Kernels(2).linear(x, matrix), Kernels(2, avx512=False).linear(x, matrix))


class Attended:
    """A sequence whose keys and values are in a cache, and the same in float64."""

    def __init__(
        self, length: int, *, n_heads: int = 6, n_kv_heads: int = 2, dim: int = 32, window: int | None = None
    ) -> None:
        self.length, self.n_heads, self.n_kv_heads, self.dim, self.window = (
            length, n_heads, n_kv_heads, dim, window,
        )  # fmt: skip
        self.shape = Heads(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=dim, block_size=16, window=window)
        self.heads = normal(length, n_heads + 2 * n_kv_heads, dim)
        angles = torch.arange(length)[:, None] * 0.1 / (1 + torch.arange(dim // 2))
        self.cos = torch.cat((angles.cos(), angles.cos()), 1)
        self.sin = torch.cat((-angles.sin(), angles.sin()), 1)
        self.table = [5, 2, 9, 0, 7, 3, 11, 1][: -(-length // 16)]
        self.cache = torch.zeros(n_kv_heads, 12, self.shape.record_bytes, dtype=torch.uint8)

    def compute(self, kernels: Kernels, chunks: list[int], query_scale: Tensor | None = None) -> Tensor:
        outputs, start = [], 0
        for size in chunks:
            rows = slice(start, start + size)
            positions = torch.arange(start, start + size)
            outputs.append(
                kernels.attend(
                    self.heads[rows].clone(),
                    self.shape,
                    StepRows(
                        cos=self.cos[rows].contiguous(),
                        sin=self.sin[rows].contiguous(),
                        query_scale=None if query_scale is None else query_scale[rows].contiguous(),
                        slots=torch.tensor(self.table)[positions // 16] * 16 + positions % 16,
                        spans=torch.tensor([[0, size, start, 0]], dtype=torch.int32),
                        tables=torch.tensor(self.table, dtype=torch.int32),
                    ),
                    self.cache,
                )
            )
            start += size
        return torch.cat(outputs)

    def expected(self, query_scale: Tensor | None = None) -> Tensor:
        """Compute the same in float64, with keys and values as the cache holds them."""
        heads = self.heads.double()
        half = self.dim // 2
        turned = torch.cat((heads[..., half:], heads[..., :half]), -1) * self.sin.double()[:, None]
        rotated = heads * self.cos.double()[:, None] + turned
        q, k = rotated[:, : self.n_heads], rotated[:, self.n_heads : self.n_heads + self.n_kv_heads]
        v = heads[:, self.n_heads + self.n_kv_heads :]
        k, v = (self._rounded(x).repeat_interleave(self.n_heads // self.n_kv_heads, 1) for x in (k, v))
        if query_scale is not None:
            q = q * query_scale.double()[:, None, None]
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.dim)
        distance = torch.arange(self.length)[:, None] - torch.arange(self.length)
        hidden = (distance < 0) | (distance >= (self.window or self.length))
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v).flatten(1)

    @staticmethod
    def _rounded(x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127
        return (x / scale).round() * scale


class TestAttention:
    @pytest.mark.parametrize("length", [1, 15, 16, 17, 100])
    @pytest.mark.parametrize("window", [None, 7, 40])
    def test_is_that_of_the_formula(self, kernels: Kernels, length: int, window: int | None) -> None:
        attended = Attended(length, window=window)
        found = attended.compute(kernels, [length])
        torch.testing.assert_close(found.double(), attended.expected(), rtol=0, atol=2e-3)

    @pytest.mark.parametrize(
        ("n_heads", "n_kv_heads", "dim"), [(4, 4, 16), (9, 3, 64), (8, 1, 128), (200, 2, 16)]
    )
    def test_other_heads(self, kernels: Kernels, n_heads: int, n_kv_heads: int, dim: int) -> None:
        attended = Attended(50, n_heads=n_heads, n_kv_heads=n_kv_heads, dim=dim)
        torch.testing.assert_close(
            attended.compute(kernels, [50]).double(), attended.expected(), rtol=0, atol=2e-3
        )

    def test_query_scale(self, kernels: Kernels) -> None:
        attended, scale = Attended(40), 1 + torch.arange(40) / 20
        found = attended.compute(kernels, [40], scale)
        torch.testing.assert_close(found.double(), attended.expected(scale), rtol=0, atol=2e-3)

    @pytest.mark.parametrize("window", [None, 20])
    def test_same_bits_in_any_chunks(self, kernels: Kernels, window: int | None) -> None:
        whole = Attended(100, window=window).compute(kernels, [100])
        for chunks in ([1] * 100, [64, 36], [37, 1, 62], [3] * 33 + [1]):
            assert torch.equal(Attended(100, window=window).compute(kernels, chunks), whole)

    def test_same_bits_beside_others(self, kernels: Kernels) -> None:
        alone = Attended(33)
        expected = alone.compute(kernels, [32, 1])[-1]
        other = Attended(33)
        other.compute(kernels, [32])
        # The same sequence twice in one batch, its blocks once more in other places of the cache.
        copies = {5: 4, 2: 6, 9: 8}
        for source, target in copies.items():
            other.cache[:, target] = other.cache[:, source]
        both = kernels.attend(
            other.heads[[32, 32]].clone(),
            other.shape,
            StepRows(
                cos=other.cos[[32, 32]],
                sin=other.sin[[32, 32]],
                query_scale=None,
                slots=torch.tensor([9 * 16, 8 * 16]),
                spans=torch.tensor([[0, 1, 32, 0], [1, 1, 32, 3]], dtype=torch.int32),
                tables=torch.tensor([5, 2, 9, 4, 6, 8], dtype=torch.int32),
            ),
            other.cache,
        )
        assert torch.equal(both, expected.expand(2, -1))


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_all_layers_at_once_are_what_they_are_one_by_one(kernels: Kernels, rows: int) -> None:
    attended = Attended(rows)
    step = StepRows(
        cos=attended.cos,
        sin=attended.sin,
        query_scale=None,
        slots=torch.tensor(attended.table).repeat_interleave(16)[:rows] * 16 + torch.arange(rows) % 16,
        spans=torch.tensor([[0, rows, 0, 0]], dtype=torch.int32),
        tables=torch.tensor(attended.table, dtype=torch.int32),
    )
    dim, inner, widths = 64, 96, 6 * 32
    qkv = (6 + 2 * 2) * 32

    def layer(seed: int, update: bool) -> Layer:
        def matrix(outputs: int, inputs: int, has_update: bool = False) -> Matrix:
            weight = normal(outputs, inputs, seed=seed + outputs) / 8
            down, up = normal(32, inputs, seed=seed), normal(outputs, 32, seed=seed + 1) / 64
            return Matrix(pack(weight, 4), (pack(down, 8), pack(up, 8)) if has_update else None)

        norms = [Norm(1 + 0.1 * normal(dim, seed=seed + i), 1e-5) for i in range(2)]
        return Layer(
            attention_norm=norms[0],
            wqkv=matrix(qkv, dim, update),
            wo=matrix(dim, widths),
            ffn_norm=norms[1],
            w13=matrix(2 * inner, dim),
            w2=matrix(dim, inner, update),
        )

    layers = [layer(10, False), layer(20, True), layer(30, False)]
    hidden, cache = normal(rows, dim, seed=9), torch.zeros(3, *attended.cache.shape, dtype=torch.uint8)
    expected, own_cache = hidden.clone(), cache.clone()
    for one, of_layer in zip(layers, own_cache, strict=True):
        heads = kernels.linear(expected, one.wqkv, one.attention_norm)
        out = kernels.attend(heads, attended.shape, step, of_layer)
        kernels.add_linear(expected, out, one.wo)
        gated = kernels.gated_linear(expected, one.w13, one.ffn_norm)
        kernels.add_linear(expected, gated, one.w2)
    kernels.run_layers(hidden, Layers(layers), attended.shape, step, cache)
    assert torch.equal(hidden, expected)
    assert torch.equal(cache, own_cache)


def test_a_matrix_keeps_its_memory() -> None:
    matrix = Matrix(QuantizedMatrix(pack(normal(16, 32), 8).data, 16))
    x = normal(1, 32)
    expected = Kernels(1).linear(x, matrix)
    torch.empty(1 << 20).fill_(1.0)
    assert torch.equal(Kernels(1).linear(x, matrix), expected)
