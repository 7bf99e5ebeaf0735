"""Component fetch."""

from components.fetch.component import fetch as fetch
