"""Component champion."""
