"""Component split."""

from components.split.component import split as split
