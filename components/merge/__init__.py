"""Component merge."""

from components.merge.component import merge as merge
