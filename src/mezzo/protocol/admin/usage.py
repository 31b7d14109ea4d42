"""`/v1/admin/usage`: what an organisation used in a month, by model, kind of token and day.

Most keys are for products that mezzo does not have; the wire has them all the same, empty.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from pydantic import Field

from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.admin.fields import QueryModel

Zone = Literal["global", "us", "eu"]
Group = Literal["input", "cached_input", "output"]


class UsageQuery(QueryModel):
    """Which month, of which workspace, in which zone of the API. A month or year left out is the present one."""

    month: Annotated[str, Field(pattern="^(0?[1-9]|1[0-2])$")] | None = None
    year: Annotated[str, Field(pattern="^20[0-9]{2}$")] | None = None
    workspace_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")] | None = None
    api_zone: Zone = "global"


class UsageOfDay(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one group, of one model and tier, on one day in UTC. timestamp: the day, as 2026-09-01."""

    timestamp: str
    value: int
    billing_metric: str
    billing_group: Group
    event_type: Literal["api_tokens"] = "api_tokens"
    service_tier: str
    api_zone: Zone = "global"


class ModelsUsage(msgspec.Struct, frozen=True, kw_only=True):
    """By model id, then by group."""

    models: dict[str, dict[Group, list[UsageOfDay]]] = {}


class LibrariesUsage(msgspec.Struct, frozen=True, kw_only=True):
    pages: ModelsUsage = ModelsUsage()
    tokens: ModelsUsage = ModelsUsage()
    audio_seconds: ModelsUsage = ModelsUsage()


class FineTuningUsage(msgspec.Struct, frozen=True, kw_only=True):
    training: dict[str, dict[Group, list[UsageOfDay]]] = {}
    storage: dict[str, dict[Group, list[UsageOfDay]]] = {}


class VibeCodeUsage(msgspec.Struct, frozen=True, kw_only=True):
    completion: ModelsUsage = ModelsUsage()
    ocr: ModelsUsage = ModelsUsage()
    connectors: ModelsUsage = ModelsUsage()
    audio: ModelsUsage = ModelsUsage()
    audio_characters: ModelsUsage = ModelsUsage()


class UsagePrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one token of a group costs. price: in units of the currency, a decimal as text."""

    event_type: Literal["api_tokens"] = "api_tokens"
    billing_metric: str
    billing_group: Group
    api_zone: Zone = "global"
    service_tier: str
    price: str


class UsageReport(Answer, frozen=True, kw_only=True):
    """The month.

    date, start_date        its first moment; end_date: its last millisecond; all in UTC
    previous_month, next_month
                            as 2026-08; the next one is None where it has not begun
    prices                  those in force at some time of the month, the older before the newer
    """

    completion: ModelsUsage
    ocr: ModelsUsage = ModelsUsage()
    connectors: ModelsUsage = ModelsUsage()
    audio: ModelsUsage = ModelsUsage()
    audio_characters: ModelsUsage = ModelsUsage()
    chat: ModelsUsage = ModelsUsage()
    libraries_api: LibrariesUsage = LibrariesUsage()
    fine_tuning: FineTuningUsage = FineTuningUsage()
    vibe_usage: int = 0
    vibe_code: VibeCodeUsage = VibeCodeUsage()
    date: str
    start_date: str
    end_date: str
    previous_month: str | None
    next_month: str | None
    currency: str
    currency_symbol: str
    prices: list[UsagePrice]
