"""Component plan."""

from components.plan.component import plan as plan
