"""Component outcome."""

from components.outcome.component import outcome as outcome
