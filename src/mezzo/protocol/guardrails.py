"""Input moderation that a request asks for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzo.protocol.base import AS_NUMBER, Bool, WireModel

Threshold = Annotated[float, Field(ge=0, le=1), AS_NUMBER]


class _CommonThresholds(WireModel):
    sexual: Threshold | None = None
    hate_and_discrimination: Threshold | None = None
    violence_and_threats: Threshold | None = None
    selfharm: Threshold | None = None
    health: Threshold | None = None
    financial: Threshold | None = None
    law: Threshold | None = None
    pii: Threshold | None = None


class ThresholdsV1(_CommonThresholds):
    dangerous_and_criminal_content: Threshold | None = None


class ThresholdsV2(_CommonThresholds):
    dangerous: Threshold | None = None
    criminal: Threshold | None = None
    jailbreaking: Threshold | None = None


class _Moderation(WireModel):
    ignore_other_categories: Bool = False
    action: Literal["none", "block"] = "none"


class ModerationV1(_Moderation):
    model_name: str = "mistral-moderation-2411"
    custom_category_thresholds: ThresholdsV1 | None = None


class ModerationV2(_Moderation):
    model_name: str = "mistral-moderation-2603"
    custom_category_thresholds: ThresholdsV2 | None = None


class Guardrail(WireModel):
    """One moderation of the request's input before the model runs."""

    block_on_error: Bool = False
    moderation_llm_v1: ModerationV1 | None = None
    moderation_llm_v2: ModerationV2 | None = None
