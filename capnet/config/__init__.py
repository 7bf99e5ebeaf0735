"""Settings: a frozen model for each section of params.yaml, one file a group of sections. Presets are in presets/."""

from capnet.config.data import (
    Data,
    Drift,
    Exponential,
    Ingest,
    Pareto,
    RequirePositives,
    Split,
    Validate,
    Validation,
)
from capnet.config.model import Backbone, Runtime, Tte
from capnet.config.params import Params, load, override, parse, settings_hash
from capnet.config.results import Evaluate, Register, Report
from capnet.config.train import Adapter, Prompt, Train
from capnet.model.losses import Loss
from capnet.section import Int, Section

__all__ = [
    "Adapter",
    "Backbone",
    "Data",
    "Drift",
    "Evaluate",
    "Exponential",
    "Ingest",
    "Int",
    "Loss",
    "Params",
    "Pareto",
    "Prompt",
    "Register",
    "Report",
    "RequirePositives",
    "Runtime",
    "Section",
    "Split",
    "Train",
    "Tte",
    "Validate",
    "Validation",
    "load",
    "override",
    "parse",
    "settings_hash",
]
