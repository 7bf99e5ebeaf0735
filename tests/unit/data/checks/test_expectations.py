"""great_expectations as the judge: what it counts is what is named, and what it cannot judge is never a pass."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from capnet.data.checks.expectations import OFFENDING, check_table, data_docs
from capnet.data.checks.rules import Rule


def rule(column: str, **more: object) -> Rule:
    return Rule(f"rule on {column}", column, "demands <this>", "says", "todo", **more)


@pytest.mark.slow
def test_an_account_without_a_home_can_import_it() -> None:
    """That of a container's user that no list of accounts names."""
    script = (
        "import os, pwd; os.environ.pop('HOME', None); pwd.getpwuid = {}.__getitem__\n"
        "from capnet.data.checks.expectations import need_library; need_library()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_rule_that_cannot_be_judged_is_never_a_pass() -> None:
    table = pd.DataFrame({"image_id": ["a"], "split": ["train"], "value": [{1}]})
    with pytest.raises((RuntimeError, TypeError)):
        check_table("x", table, [rule("value", maximum=1)])
    with pytest.raises(KeyError, match="valeu"):
        check_table("x", table, [rule("valeu", maximum=1)])


def test_what_it_passes_over_is_never_a_pass() -> None:
    """It skips empty cells, so a table with some must not be judged."""
    table = pd.DataFrame({"image_id": ["a", "b", "c"], "path": ["a.png", None, None], "split": "train"})
    with pytest.raises(RuntimeError, match="counts 0 offending rows, the table has 2"):
        check_table("x", table, [rule("path", unique=True)])


def test_rows_that_share_a_value_stand_together_and_the_list_is_short() -> None:
    table = pd.DataFrame(
        {"image_id": [f"{i % 40:02}" for i in range(80)], "path": [f"{i:02}" for i in range(80)], "split": "train"}
    )
    (check,) = check_table("x", table, [rule("image_id", unique=True)]).checks
    assert check.observed == check.rows == 80
    assert [row["image_id"] for row in check.offending] == [f"{i // 2:02}" for i in range(OFFENDING)]
    assert check.status == "failed"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_counts_equal_a_direct_count(share: float) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"{i}" for i in range(500)],
            "width": np.where(rng.random(500) < share, rng.choice([2, 900], 500), 100),
        }
    )
    (check,) = check_table("x", table, [rule("width", minimum=16, maximum=800)]).checks
    assert check.observed == int(((table["width"] < 16) | (table["width"] > 800)).sum())
    assert check.success == (check.observed == 0)


@pytest.mark.slow
def test_documents_say_the_demand_and_carry_neither_times_nor_what_a_name_smuggles_in() -> None:
    table = pd.DataFrame({"image_id": ["<script>alert(1)</script>"] * 2, "width": [1, 100]})

    def pages() -> dict[str, str]:
        return data_docs([check_table("pictures", table, [rule("width", minimum=16), rule("image_id", unique=True)])])

    first = pages()
    time.sleep(1.1)
    assert pages() == first
    assert list(first) == ["pictures.html"]
    assert "1 unexpected values found. 50% of 2 total rows." in re.sub(r"\s*<[^>]*>\s*", " ", first["pictures.html"])
    assert "&lt;script&gt;alert(1)" in first["pictures.html"]
    assert "<script>alert(1)" not in first["pictures.html"]
