"""Sections evaluate and register: what is measured, and what becomes a version."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from capnet.section import Int, Section


class Threshold(Section):
    objective: str = Field("f1", description="f1, recall>=R or precision>=P, per class on held-out rows")
    critical_objective: str = Field(
        "", description="objective of the classes that classes.csv calls critical; empty: the same as for others"
    )
    min_positives: Int = Field(
        5, ge=1, description="for recall and precision, classes with fewer held-out positives borrow a pooled threshold"
    )

    @field_validator("objective", "critical_objective")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        if value == "f1" or (not value and info.field_name == "critical_objective"):
            return value
        name, _, number = value.partition(">=")
        try:
            fine = name in ("recall", "precision") and 0 < float(number) <= 1
        except ValueError:
            fine = False
        if not fine:
            raise ValueError("allowed are f1, recall>=R and precision>=P with R, P in (0, 1]")
        return value


class Probe(Section):
    enabled: bool = Field(True, description="fit a linear probe (logistic regression on frozen features) as a baseline")


class Report(Section):
    thumbnails: bool = Field(False, description="show the worst pictures; leave off where pictures must not travel")
    worst: Int = Field(6, ge=1, le=24, description="pictures per bucket")


class Evaluate(Section):
    bootstrap: Int = Field(1000, ge=100, le=100_000, description="bootstrap draws")
    calibration_prior: float = Field(
        1.0,
        gt=0,
        description=(
            "a class with k expected held-out positives moves about k / (k + prior) of the way from the shared shift"
            " to its own"
        ),
    )
    threshold: Threshold = Threshold()
    probe: Probe = Probe()
    report: Report = Report()


class Register(Section):
    name: str = Field(
        "capnet",
        pattern=r"^\w([\w .-]*[\w.-])?$",
        description=(
            "registered model name: letters, digits and underscores, between them blanks, dots and hyphens as well"
        ),
    )
    experiment: str = Field("capnet", min_length=1, max_length=250, description="MLflow experiment")
    tracking_uri: str = Field("sqlite:///mlflow.db", min_length=1, description="used unless MLFLOW_TRACKING_URI is set")
    alias: str = Field("challenger", pattern=r"^[\w-]+$", max_length=255, description="alias given to the new version")
    policy: str = Field(
        "mlflow/promotion.yaml",
        min_length=1,
        description="file with the rules that a new version must keep to replace the champion",
    )
    data_licence: str = Field(
        "",
        description="licence of the pictures, for the data card; empty: what ATTRIBUTION or LICENSE in data.root says",
    )
    pack_backbone: bool = Field(
        False,
        description=(
            "put the image tower's weights into the registered model: it loads without weight files and without a"
            " network"
        ),
    )

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value.lower() == "latest" or (value[:1] in "vV" and value[1:].isdigit()):
            raise ValueError("MLflow keeps 'latest' and v1, v2, ... for itself")
        if value.lower() == "champion":
            raise ValueError("'champion' is given by `capnet promote`, behind its gate")
        return value
