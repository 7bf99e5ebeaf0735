"""Forms of a stage's JSON, as typed dictionaries that pydantic checks: a word in the place of a number is refused where
the file is read, and not where a page or a card is written hours later.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


def check(form: Any, content: Any) -> None:
    """Check what was read; nothing is converted, and parts that the form does not name are ignored.

    Args:
        form: a typed dictionary.
        content: of a file.

    Raises:
        ValueError: names the first part of ``content`` that does not fit the form.
    """
    try:
        _adapter(form).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])) or "the content"
        raise ValueError(f"{name}: {first['msg']}") from None


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)
