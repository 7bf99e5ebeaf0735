"""Component champion."""

from components.champion.component import champion as champion
