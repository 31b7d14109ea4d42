"""The three lessons: what each computes from a batch.

    decoder   reads cells of known content (codes) and answers; no picture is looked at
    encoder   looks at pictures and writes the codes of their cells; no decoder is asked
    joint     looks, reads and answers, all at once

Losses are means over what they count, so their weights do not depend on sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mezzo.model.decoder import Decoder
from mezzo.train.chat import Conversation
from mezzo.train.data.source import Batch
from mezzo.train.decoder_pass import hidden_states, plain_logits
from mezzo.train.lora import without_lora
from mezzo.train.vision_half import VisionHalf, encode

_NAMING_WEIGHT, _WRITING_WEIGHT = 0.15, 0.05  # beside answers
_CODE_NOISE = 0.3  # of the embeddings' size: what the encoder writes will not be exact


class Lessons:
    """The trained half with the decoder it learns beside."""

    def __init__(self, half: VisionHalf, decoder: Decoder, image_id: int) -> None:
        self.half = half
        self.decoder = decoder
        self.image_id = image_id

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    def encoder(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of naming and of writing what is in each cell, and shares that are right."""
        targets = self._targets(batch)
        patches, cells = encode(self.half.vision, torch.from_numpy(batch.pixels).to(self.device))
        naming, writing, shares = self._naming(patches, cells, targets)
        return naming + writing, shares

    def decoder_alone(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of answers about cells that are given as codes, and shares that are right."""
        cells = self.half.codes(self._targets(batch))
        if self.half.training:
            cells = cells + torch.randn_like(cells) * (_CODE_NOISE * self.half.embedding_rms)
        return self._answers(batch.conversations, cells)

    def joint(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of answers about pictures, and shares that are right.

        Naming keeps a part in it, so that what is seen is not forgotten; writing the codes a smaller one, so that the
        projector may find what the decoder reads better.
        """
        targets = self._targets(batch)
        patches, cells = encode(self.half.vision, torch.from_numpy(batch.pixels).to(self.device))
        naming, writing, named = self._naming(patches, cells, targets)
        answers, shares = self._answers(batch.conversations, cells)
        return answers + _NAMING_WEIGHT * naming + _WRITING_WEIGHT * writing, shares | named

    def language(self, token_ids: Tensor) -> Tensor:
        """Return how far the decoder has moved on plain text: mean KL divergence from what it was, in nats a token.

        Shapes: token_ids (sequences, length) int64, without padding.
        """
        embeddings = self.decoder.tok_embeddings(token_ids)
        with torch.no_grad(), without_lora(self.decoder):
            before = self._log_probabilities(embeddings)
        return F.kl_div(self._log_probabilities(embeddings), before, reduction="batchmean", log_target=True)

    def _log_probabilities(self, embeddings: Tensor) -> Tensor:
        hidden = hidden_states(self.decoder, embeddings).flatten(0, 1)
        return F.log_softmax(plain_logits(self.decoder, hidden), dim=-1)

    def _naming(
        self, patches: Tensor, cells: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        rms = self.half.embedding_rms
        naming, shares = self.half.heads(patches, cells / rms, targets)
        wanted = self.half.codes(targets).detach()
        writing = ((cells - wanted) / rms).square().mean()
        return naming, writing, shares | {"writing": writing.item()}

    def _answers(self, conversations: list[Conversation], cells: Tensor) -> tuple[Tensor, dict[str, float]]:
        token_ids = padded(conversations).to(self.device)
        embeddings = self.decoder.tok_embeddings(token_ids)
        rows = (token_ids == self.image_id).flatten().nonzero()[:, 0]
        embeddings = embeddings.flatten(0, 1).index_copy(0, rows, cells).view(embeddings.shape)
        hidden = hidden_states(self.decoder, embeddings)
        places = [(row, target) for row, c in enumerate(conversations) for target in c.targets]
        row, target = torch.tensor(places, device=self.device).unbind(1)
        logits = plain_logits(self.decoder, hidden[row, target - 1])
        wanted = token_ids[row, target]
        right = logits.detach().argmax(-1) == wanted
        return F.cross_entropy(logits, wanted), {
            "tokens": right.float().mean().item(),
            "exact": _exact_share(right.tolist(), conversations),
        }

    def _targets(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in batch.targets.items()}


def padded(conversations: list[Conversation]) -> Tensor:
    """Return token ids (conversations, longest) int64, padded at the end with 0."""
    return pad_sequence([torch.tensor(c.token_ids) for c in conversations], batch_first=True)


def _exact_share(right: list[bool], conversations: list[Conversation]) -> float:
    """Return the share of conversations whose answers are right in every token, given the right ones before it."""
    start = exact = 0
    for conversation in conversations:
        end = start + len(conversation.targets)
        exact += all(right[start:end])
        start = end
    return exact / len(conversations)
