"""How the benchmarks draw: with matplotlib, without a screen; the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pyplot() -> Any:
    """The module matplotlib.pyplot, set up."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "capnet", "svg.fonttype": "none", "font.size": 10})
    import matplotlib.pyplot as plt

    return plt


def save(page: Any, out: Path) -> None:
    """Write a figure without the date; the suffix of ``out`` says the kind."""
    page.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
