"""Turns a `SchedulerOutput` into tensors, runs encoder and decoder, returns logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mezzo.engine.images import SequenceImage
from mezzo.engine.scheduler import ScheduledEncoding, ScheduledSequence
from mezzo.model.attention import SequenceSpan, length_bucket, plan_attention
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.vision import Encoding, Vision


class Runner:
    """A model, its KV cache and the embeddings of images, on one device.

    Which embeddings are kept is decided by the scheduler; here they are only held, by the key of their image.
    """

    def __init__(self, network: Network, cache: KVCache) -> None:
        self.network = network
        self.decoder = network.decoder
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
    def forward(self, scheduled: list[ScheduledSequence]) -> tuple[Tensor, list[ScheduledSequence]]:
        """Compute the scheduled tokens. The images that they stand for must be encoded.

        Returns logits (rows, vocab_size) float32 and, row by row, the sequences whose next token they predict:
        those that the step catches up with.
        """
        device = self.decoder.device
        spans = [_span(item) for item in scheduled]
        order = sorted(range(len(spans)), key=lambda i: self._group_key(spans[i]))
        scheduled, spans = [scheduled[i] for i in order], [spans[i] for i in order]

        token_ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        complete: list[ScheduledSequence] = []
        image_rows: list[int] = []
        image_embeddings: list[Tensor] = []
        for item, span in zip(scheduled, spans, strict=True):
            end = span.num_context + span.num_new
            for image in item.sequence.images_between(span.num_context, end):
                rows_of_image, embeddings = self._visible(item, image, len(token_ids))
                image_rows += rows_of_image
                image_embeddings.append(embeddings)
            token_ids += item.sequence.tokens_between(span.num_context, end)
            positions += range(span.num_context, end)
            if item.completes:
                rows.append(len(token_ids) - 1)
                complete.append(item)

        plan = plan_attention(spans, self.cache, self.decoder.config, self.decoder.dtype, device)
        logits = self.decoder(
            torch.tensor(token_ids, device=device),
            torch.tensor(positions, device=device),
            plan,
            self.cache,
            torch.tensor(rows, dtype=torch.int64, device=device),
            image_rows=torch.tensor(image_rows, device=device) if image_rows else None,
            image_embeddings=torch.cat(image_embeddings).float() if image_rows else None,
        )
        return logits, complete

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

    def _group_key(self, span: SequenceSpan) -> tuple[bool, int]:
        """Single tokens first, by length, so that those which can share a group are neighbours."""
        return (span.num_new > 1, length_bucket(span, self.cache.block_size))


def _span(item: ScheduledSequence) -> SequenceSpan:
    return SequenceSpan(item.sequence.block_table, item.sequence.num_computed, item.num_new)
