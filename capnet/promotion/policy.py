"""mlflow/promotion.yaml: what a candidate must hold against the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from capnet.config import Int, Section
from capnet.errors import ConfigError
from capnet.inline import text_and_path
from capnet.section import problems_of
from capnet.yaml_text import read_yaml

DEFAULT = "mlflow/promotion.yaml"
# strict: `true` would be a margin of 1, which asks for nothing
Margin = Annotated[float, Field(gt=0.0, le=1.0, strict=True)]


class Minimum(Section):
    mAP: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        strict=True,
        description="mAP that every champion needs, whatever the champion before it had; 0 asks for nothing",
    )


class MayFall(Section):
    mAP: Margin = Field(0.02, description="most that mAP may be below the champion's")
    tail: Margin = Field(0.03, description="most that the mean over tail classes may be below the champion's")
    critical: Margin = Field(
        0.05,
        description="most that a class marked critical in classes.csv may be below the champion's; and what labels "
        "given at the thresholds may lose of what was asked of them, below which a person must give a reason",
    )


class Policy(Section):
    """All numbers are fractions of 1."""

    minimum: Minimum = Minimum()
    coverage: float = Field(
        0.99,
        ge=0.0,
        le=1.0,
        strict=True,
        description="least share of the champion's test pictures, of its tail positives, of those of each critical "
        "class and of their groups that must be compared; below it a person must give a reason; 0 asks for nothing",
    )
    may_fall: MayFall = MayFall()
    draws: Int = Field(1000, ge=200, le=100_000, description="bootstrap draws")
    seed: Int = Field(0, ge=0, description="seed of the draws")


def read_policy(setting: str | Path) -> Policy:
    """The policy in a file, or in the setting itself.

    Args:
        setting: ``register.policy``: a path, or the YAML text.

    Returns:
        The policy; the usual one where the usual file is not there.

    Raises:
        ConfigError: another file is not there, or a key is wrong; names every one.
    """
    text, path = text_and_path(setting, "register.policy")
    if text is None and path == Path(DEFAULT):
        return Policy()  # outside the repository
    if text is None:
        raise ConfigError(
            "there is no promotion policy",
            str(path),
            "write one (mlflow/promotion.yaml is an example), or correct register.policy",
        )
    try:
        content = read_yaml(text)
        return Policy.model_validate({} if content is None else content)
    except ValidationError as error:
        todo = "mlflow/promotion.yaml has every key that may stand there, with its meaning"
        raise ConfigError(problems=problems_of(error, str(path), todo)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"not valid YAML: {' '.join(str(error).split())}", str(path), "correct the file at that line"
        ) from None
