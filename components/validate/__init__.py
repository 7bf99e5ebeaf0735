"""Component validate."""

from components.validate.component import validate as validate
