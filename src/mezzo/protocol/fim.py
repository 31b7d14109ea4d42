"""The body of `POST /v1/fim/completions`: text to be filled in between a prompt and a suffix."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzo.protocol.base import AS_NUMBER, Bool, JsonObject, NonNegativeInt, WireModel
from mezzo.protocol.chat import MAX_STOP_STRINGS, StopString, stop_strings


class FimCompletionRequest(WireModel):
    """One request as the wire has it; None means that the client left a choice to the server."""

    model: str
    prompt: str
    suffix: str | None = None
    temperature: Annotated[float, Field(ge=0, le=1.5), AS_NUMBER] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), AS_NUMBER] | None = None
    max_tokens: NonNegativeInt | None = None
    min_tokens: NonNegativeInt | None = None
    stream: Bool = False
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    random_seed: NonNegativeInt | None = None
    metadata: JsonObject | None = None
    prompt_cache_key: str | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end the answer, in the order given."""
        return stop_strings(self.stop)
