"""What the network's own eyes see of the pictures in training data. They are frozen: a picture is looked at once."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from mezzo.model.vision import Vision
from mezzo.train.documents.corpus import Corpus
from mezzo.train.documents.samples import Sample

_MAX_BYTES = 2 * 1024**3


class Pictures:
    """Embeddings of a corpus's pictures, those used last kept in the machine's memory."""

    def __init__(
        self, corpus: Corpus, vision: Vision, device: torch.device, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._corpus = corpus
        self._vision = vision
        self._device = device
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def embeddings(self, sample: Sample) -> list[Tensor]:
        """Return the embeddings of each picture, (image tokens, dim) float32 on the device, in the prompt's order.

        Raises: CannotTrain for a picture that is no longer what it was.
        """
        if any(digest not in self._kept for digest in sample.pictures):
            seen = self._look(sample)
        else:
            seen = {digest: self._kept[digest] for digest in sample.pictures}
        for digest, embeddings in seen.items():
            self._keep(digest, embeddings)
        return [seen[digest].to(self._device) for digest in sample.pictures]

    @torch.no_grad()
    def _look(self, sample: Sample) -> dict[bytes, Tensor]:
        # One at a time: what is seen of a picture must not depend on the others by so much as a rounding.
        return {
            digest: self._kept[digest]
            if digest in self._kept
            else self._vision([torch.from_numpy(pixels).to(self._device)])[0].cpu()
            for digest, pixels in zip(sample.pictures, self._corpus.pixels(sample), strict=True)
        }

    def _keep(self, digest: bytes, embeddings: Tensor) -> None:
        if digest not in self._kept:
            self._num_bytes += embeddings.nbytes
        self._kept[digest] = embeddings
        self._kept.move_to_end(digest)
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes
