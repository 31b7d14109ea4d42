"""What every type read from a client has in common: closed, finite, immutable, and typed as written.

JSON types are taken at their word: `"10"` and `true` are no numbers, `1` and `"yes"` are no booleans. Text
that is no number at all keeps the error type that the reference API reports (`int_parsing`, `float_parsing`).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from pydantic_core import PydanticKnownError

INT64_MAX = 2**63 - 1


class WireModel(BaseModel):
    """Base of the wire types: unknown fields, NaN and infinities are refused; instances never change."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _refuse_int_lookalike(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and _reads_as(int, value)):
        raise PydanticKnownError("int_type")
    return value


def _refuse_float_lookalike(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and _reads_as(float, value)):
        raise PydanticKnownError("float_type")
    return value


def _reads_as(number: type[int] | type[float], text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _require_finite(value: Any) -> Any:
    """Refuse a number beyond the range of a double (`1e400`) anywhere inside free-form JSON."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise PydanticKnownError("finite_number")
    return value


# Constraints go before the marker, so that they become part of the number's own schema:
# Annotated[float, Field(ge=0), AS_NUMBER].
AS_INTEGER = BeforeValidator(_refuse_int_lookalike)
AS_NUMBER = BeforeValidator(_refuse_float_lookalike)

Int = Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX), AS_INTEGER]
NonNegativeInt = Annotated[int, Field(ge=0, le=INT64_MAX), AS_INTEGER]
Float = Annotated[float, AS_NUMBER]
Bool = StrictBool
JsonObject = Annotated[dict[str, Any], AfterValidator(_require_finite)]
"""Free-form JSON, for what this layer only carries: metadata, JSON schemas, call arguments."""
