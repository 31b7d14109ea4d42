"""What `/v1/models` answers: cards, one for each name."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

_encode = msgspec.json.Encoder().encode


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a model can do; the wire has every key."""

    completion_chat: bool = False
    function_calling: bool = False
    reasoning: bool = False
    completion_fim: bool = False
    fine_tuning: bool = False
    vision: bool = False
    ocr: bool = False
    classification: bool = False
    moderation: bool = False
    audio: bool = False
    audio_transcription: bool = False
    audio_transcription_realtime: bool = False
    audio_speech: bool = False
    unified_resources: bool = False


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One name of one model.

    id           the name this card is for
    name         the model's own name; `aliases` are all its names but `id`
    deprecation  the time of retirement, with time zone; None unless the model is deprecated
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mistralai"
    name: str
    description: str
    max_context_length: int
    aliases: list[str]
    deprecation: datetime | None = None
    deprecation_replacement_model: str | None = None
    default_model_temperature: float
    type: Literal["base"] = "base"
    capabilities: Capabilities

    def to_json(self) -> bytes:
        """Return the body, UTF-8."""
        return _encode(self)


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelCard]

    def to_json(self) -> bytes:
        """Return the body, UTF-8."""
        return _encode(self)
