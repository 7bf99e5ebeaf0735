"""Several seeds: numpy as the oracle, and what the page says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from capnet.errors import ContractError
from capnet.evaluation.seeds import figures_of, summarise, with_seeds

PAGE = "<html><body><header>x</header>\n<main>\n<section>rest</section></main></body></html>"
RUNS = [
    {"mAP": 0.61, "tail": 0.30, "zero_shot_mAP": 0.5},
    {"mAP": 0.63, "tail": 0.40, "zero_shot_mAP": 0.5},
    {"mAP": 0.59, "tail": 0.20, "zero_shot_mAP": 0.5},
]


def test_figures_are_put_in_the_order_of_the_seeds_however_the_server_gives_them() -> None:
    first, second, third = ([{"seed": seed, **run}] for seed, run in zip((7.0, 1.0, 2.0), RUNS, strict=True))
    assert figures_of(first, [], [7]) == RUNS[:1]
    assert figures_of(first, [second], [7, 1]) == figures_of(first, second, [7, 1]) == RUNS[:2]
    assert figures_of(first, [second, third], [7, 1, 2]) == figures_of(first, [third, second], [7.0, 1.0, 2.0]) == RUNS
    for others in ([second], [second, second], [second, third, third]):
        with pytest.raises(ContractError, match="expected were"):
            figures_of(first, others, [7, 1, 2])


def test_mean_and_deviation_are_those_of_numpy() -> None:
    figures = summarise(RUNS).figures()
    for name in RUNS[0]:
        values = [run[name] for run in RUNS]
        assert figures[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert figures[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_one_seed_has_no_deviation_and_leaves_the_report_alone() -> None:
    table = summarise(RUNS[:1])
    assert table.figures() == RUNS[0]
    assert with_seeds(PAGE, table, [0]) == PAGE


def test_the_report_names_every_seed_and_the_registered_one() -> None:
    page = with_seeds(PAGE, summarise(RUNS), [7.0, 1.0, 2.0])
    assert re.findall(r"seed (\d+)</th>", page) == ["7", "1", "2"]
    assert "what was registered is seed 7" in page
    row = re.search(r'<th scope="row">tail</th>(.*?)</tr>', page)
    assert row
    assert re.findall(r"<td>([\d.]+)</td>", row[1]) == ["30.00", "10.00", "30.00", "40.00", "20.00"]
    assert page.index("Over 3 seeds") < page.index("rest")


def test_the_real_report_has_the_place_for_the_table(repository) -> None:
    assert (repository / "capnet" / "evaluation" / "report" / "report.html").read_text().count("<main>") == 1


def test_seeds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ContractError, match="no seed"):
        summarise([])
    with pytest.raises(ContractError, match="not every seed has tail"):
        summarise([RUNS[0], {"mAP": 0.6, "zero_shot_mAP": 0.5}])
    with pytest.raises(ContractError, match="no report"):
        with_seeds("<p>", summarise(RUNS), [0, 1, 2])
