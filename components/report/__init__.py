"""Component report."""

from components.report.component import report as report
