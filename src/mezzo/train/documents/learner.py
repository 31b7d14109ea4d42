"""The loss of a batch: the frozen network with its update beside it, read whole, asked for answers alone.

Number formats are those of serving: matrices and what they are multiplied with in the checkpoint's dtype, the residual
stream and the update's parameters in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from mezzo.model.decoder import Decoder
from mezzo.train.decoder_pass import hidden_states, plain_logits
from mezzo.train.documents.pictures import Pictures
from mezzo.train.documents.samples import Sample

_ROWS_OF_LOGITS = 256


@dataclass(frozen=True)
class Learner:
    """The decoder with its update, and the pictures that it is shown.

    saves_memory   compute each layer and each part of the logits again for its gradient, instead of keeping it
    """

    decoder: Decoder
    pictures: Pictures | None
    image_token_id: int | None
    saves_memory: bool = False

    def loss(self, samples: list[Sample]) -> tuple[Tensor, int]:
        """Return the mean negative log-likelihood of the batch's targets, in nats, and how many are likeliest."""
        hidden = hidden_states(self.decoder, self._embeddings(samples), saves_memory=self.saves_memory)
        length = hidden.shape[1]
        places = [(row * length + at, s.token_ids[at]) for row, s in enumerate(samples) for at in s.targets]
        targets, wanted = torch.tensor(places, device=hidden.device).unbind(1)
        rows = hidden.flatten(0, 1)[targets - 1]
        total, num_right = hidden.new_zeros(()), 0
        for part, ids in zip(
            torch.split(rows, _ROWS_OF_LOGITS), torch.split(wanted, _ROWS_OF_LOGITS), strict=True
        ):
            if self.saves_memory and part.requires_grad:
                loss, right = checkpoint(self._part, part, ids, use_reentrant=False)
            else:
                loss, right = self._part(part, ids)
            total, num_right = total + loss, num_right + int(right)
        return total / len(places), num_right

    def _part(self, hidden: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = plain_logits(self.decoder, hidden)
        right = (logits.detach().argmax(-1) == wanted).sum()
        return F.cross_entropy(logits, wanted, reduction="sum"), right

    def _embeddings(self, samples: list[Sample]) -> Tensor:
        """Return embeddings (samples, longest, dim) float32, padded at the end, with pictures for their tokens."""
        device = self.decoder.device
        token_ids = pad_sequence([torch.tensor(s.token_ids) for s in samples], batch_first=True).to(device)
        embeddings: Tensor = self.decoder.tok_embeddings(token_ids)
        seen = [e for s in samples if s.pictures and self.pictures for e in self.pictures.embeddings(s)]
        if not seen:
            return embeddings
        length = token_ids.shape[1]
        rows = [
            row * length + at
            for row, sample in enumerate(samples)
            for at, token_id in enumerate(sample.token_ids)
            if token_id == self.image_token_id
        ]
        flat = embeddings.flatten(0, 1).index_copy(0, torch.tensor(rows, device=device), torch.cat(seen))
        return flat.view_as(embeddings)
