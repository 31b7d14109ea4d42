"""Turns a `SchedulerOutput` into tensors, runs encoder and decoder, returns logits."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mezzo.engine.images import SequenceImage
from mezzo.engine.scheduler import ScheduledEncoding, ScheduledSequence
from mezzo.engine.sequence import Sequence, TokenScore
from mezzo.model.attention import SequenceSpan, length_bucket
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.packed_weights import QuantizedNetwork
from mezzo.model.quantized_kv_cache import QuantizedKVCache
from mezzo.model.vision import Encoding, Vision


class StepResult(NamedTuple):
    """What a step computed.

    logits     (rows, vocab_size) float32: for each of `complete`, in their order, one row for its next token and one
               for the token after each of its draft's
    complete   what the step catches up with
    scores     of prompts that are scored: sequence, position and score of tokens
    """

    logits: Tensor
    complete: list[ScheduledSequence]
    scores: list[tuple[Sequence, int, TokenScore]]


class AnyDecoder(Protocol):
    """What the engine asks of a decoder; `mezzo.model.decoder.Decoder` says what it means.

    A cache and a plan are of the decoder's own kind, which the types do not say.
    """

    @property
    def config(self) -> ModelConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def plan(self, spans: list[SequenceSpan], cache: Any) -> Any: ...

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        plan: Any,
        cache: Any,
        logits_rows: Tensor,
        image_rows: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Tensor: ...


class Runner:
    """A model, its KV cache and the embeddings of images, on one device.

    Which embeddings are kept is decided by the scheduler; here they are only held, by the key of their image.
    """

    def __init__(self, network: Network | QuantizedNetwork, cache: KVCache | QuantizedKVCache) -> None:
        """`cache` is of the network's kind."""
        self.network = network
        self.decoder: AnyDecoder = network.decoder
        self.cache = cache
        self._encodings: dict[bytes, Encoding] = {}
        self._embeddings: dict[bytes, Tensor] = {}

    @property
    def image_token_id(self) -> int | None:
        """The token whose embedding an image provides; None for a model that sees nothing."""
        vision = self.decoder.config.vision
        return None if vision is None else vision.image_token_id

    def num_embeddings(self, height: int, width: int) -> int:
        """Return how many embeddings an image of this size has. Raises: ValueError for a size the model cannot read."""
        vision = self._vision.config
        edge = vision.patch_size * vision.spatial_merge_size
        if height < 1 or width < 1 or height % edge or width % edge:
            raise ValueError(f"an image of {width}x{height} pixels is not made of patches of {edge}")
        return height // edge * (width // edge)

    def encoding_cost(self, height: int, width: int) -> tuple[int, float]:
        """Return the layers that an image passes, and the cost of each in tokens of a prompt.

        What is computed before the first layer and after the last is a part of each.
        Raises: ValueError for a model that sees nothing.
        """
        config = self._vision.config
        num_layers = config.num_hidden_layers
        num_patches = height // config.patch_size * (width // config.patch_size)
        ends = config.ends_flops(num_patches, self.network.config.dim)
        flops = config.layer_flops(num_patches) + ends / num_layers
        return num_layers, flops / self.network.config.flops_per_token

    @property
    def _vision(self) -> Vision:
        if self.network.vision is None:
            raise ValueError("this model has no vision encoder")
        return self.network.vision

    def forget_images(self, keys: list[bytes]) -> None:
        """Give up the embeddings of images, whole or begun; keys without any are ignored."""
        for key in keys:
            self._encodings.pop(key, None)
            self._embeddings.pop(key, None)

    @torch.inference_mode()
    def encode(self, scheduled: list[ScheduledEncoding]) -> None:
        """Run the scheduled layers; embeddings of an image are there once its last layer is run."""
        for item in scheduled:
            image, vision = item.image, self._vision
            encoding = self._encodings.pop(image.key, None)
            if encoding is None:
                encoding = vision.begin([self._pixels(image)])
            if vision.advance(encoding, item.num_layers):
                self._embeddings[image.key] = vision.finish(encoding)[0].to(self.decoder.dtype)
            else:
                self._encodings[image.key] = encoding

    @torch.inference_mode()
    def forward(self, scheduled: list[ScheduledSequence]) -> StepResult:
        """Compute the scheduled tokens. The images that they stand for must be encoded."""
        device = self.decoder.device
        scheduled = sorted(scheduled, key=self._group_key)

        spans: list[SequenceSpan] = []
        token_ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        scored: list[tuple[Sequence, int]] = []
        scored_rows: list[int] = []
        complete: list[ScheduledSequence] = []
        image_rows: list[int] = []
        image_embeddings: list[Tensor] = []
        for item in scheduled:
            sequence, start = item.sequence, item.sequence.num_computed
            end = start + item.num_new
            for image in sequence.images_between(start, end):
                rows_of_image, embeddings = self._visible(item, image, len(token_ids))
                image_rows += rows_of_image
                image_embeddings.append(embeddings)
            if sequence.scored_from is not None:
                for position in range(
                    max(start + 1, sequence.scored_from), min(end + 1, sequence.num_prompt)
                ):
                    scored.append((sequence, position))
                    scored_rows.append(len(token_ids) + position - 1 - start)
            num_new = item.num_new + len(item.draft)
            spans.append(SequenceSpan(sequence.block_table, start, num_new, decodes=bool(item.draft)))
            token_ids += (*sequence.tokens_between(start, end), *item.draft.token_ids)
            positions += range(start, end + len(item.draft))
            if item.completes:
                rows += range(len(token_ids) - len(item.draft) - 1, len(token_ids))
                complete.append(item)

        plan = self.decoder.plan(spans, self.cache)
        logits = self.decoder(
            torch.tensor(token_ids, device=device),
            torch.tensor(positions, device=device),
            plan,
            self.cache,
            torch.tensor(rows + scored_rows, dtype=torch.int64, device=device),
            image_rows=torch.tensor(image_rows, device=device) if image_rows else None,
            image_embeddings=torch.cat(image_embeddings).float() if image_rows else None,
        )
        return StepResult(logits[: len(rows)], complete, _scores(logits[len(rows) :], scored))

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy blocks of the cache, (source, target)."""
        if pairs:
            with torch.inference_mode():
                self.cache.copy_blocks([source for source, _ in pairs], [target for _, target in pairs])

    def _visible(
        self, item: ScheduledSequence, image: SequenceImage, first_row: int
    ) -> tuple[list[int], Tensor]:
        """Return the rows of the step that stand for patches of `image`, and their embeddings.

        first_row: the row of the item's first token. The item may begin and end amid the image.
        """
        sequence = item.sequence
        context = sequence.num_computed
        start, end = max(image.start, context), min(image.end, context + item.num_new)
        num_before = sequence.tokens_between(image.start, start).count(self.image_token_id)  # type: ignore[arg-type]
        rows = [
            first_row + position - context
            for position, token_id in enumerate(sequence.tokens_between(start, end), start)
            if token_id == self.image_token_id
        ]
        return rows, self._embeddings[image.key][num_before : num_before + len(rows)]

    def _pixels(self, image: SequenceImage) -> Tensor:
        pixels = np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.height, image.width, 3)
        return torch.tensor(pixels, device=self.decoder.device)

    def _group_key(self, item: ScheduledSequence) -> tuple[bool, int]:
        """Single tokens first, by length, so that those which can share a group are neighbours."""
        num_new = item.num_new + len(item.draft)
        span = SequenceSpan(item.sequence.block_table, item.sequence.num_computed, num_new)
        return (num_new > 1, length_bucket(span, self.cache.block_size))


def _scores(logits: Tensor, places: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int, TokenScore]]:
    """logits (places, vocab_size): rows of the tokens before those at `places`."""
    if not places:
        return []
    token_ids = torch.tensor(
        [sequence.tokens_between(at, at + 1) for sequence, at in places], device=logits.device
    )
    of_tokens = logits.gather(1, token_ids)[:, 0]
    logprobs = (of_tokens - logits.logsumexp(-1)).tolist()
    greedy = (of_tokens == logits.max(-1).values).tolist()
    return [
        (sequence, position, TokenScore(logprob, is_greedy))
        for (sequence, position), logprob, is_greedy in zip(places, logprobs, greedy, strict=True)
    ]
