"""Component register."""

from components.register.component import register as register
