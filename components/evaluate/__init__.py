"""Component evaluate."""

from components.evaluate.component import evaluate as evaluate
