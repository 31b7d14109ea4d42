"""The whole network: a decoder, and eyes where the checkpoint has them."""

from __future__ import annotations

import torch
from torch import nn

from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.vision import Vision


class Network(nn.Module):
    """A language model and its vision half, which meet in `Decoder.forward`'s image embeddings.

    row_cost   time of one more row in a step, as a share of what a step takes whatever its rows: 32 rows take about
               twice the time of 4 (python -m benchmarks.products)
    """

    row_cost = 0.03

    def __init__(self, decoder: Decoder, vision: Vision | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.vision = vision

    @classmethod
    def from_config(cls, config: ModelConfig, dtype: torch.dtype) -> Network:
        """Make a network whose parameters are uninitialised, on torch's current default device."""
        vision = None if config.vision is None else Vision(config.vision, config.dim, dtype)
        return cls(Decoder(config, dtype), vision)

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config

    @property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters())

    @property
    def number_format(self) -> str:
        """What the matrices are in, as users name it."""
        return str(self.decoder.dtype).removeprefix("torch.")
