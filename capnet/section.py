"""What every section is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _safe_integer(value: Any) -> Any:
    """KFP turns 10 into 10.0: accept an integral float, refuse true and false and what a double cannot hold exactly."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    if isinstance(value, int | float) and abs(value) > 2**53:
        raise ValueError("integers above 2^53 do not survive a pipeline parameter")
    return value


Int = Annotated[int, BeforeValidator(_safe_integer)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
