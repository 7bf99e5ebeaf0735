"""A report of a made-up run, which all tests of it read."""

from __future__ import annotations

import pytest
from unit.evaluation.made_run import MadeRun, make_run
from unit.evaluation.report.page import Page, html_of


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """Its files; one class has no test positives. Read only."""
    return make_run(tmp_path_factory.mktemp("run"), empty=(38,))


@pytest.fixture(scope="session")
def html(run: MadeRun) -> str:
    """Its report."""
    return html_of(run)


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    """The report, read as a browser would."""
    return Page(html)
