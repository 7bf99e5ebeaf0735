"""KFP component report: a thin shim; what it does is in capnet/evaluation/seeds.py."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def report(
    evaluation: Input[Dataset], first: list, others: list, seeds: list, report: Output[HTML], metrics: Output[Metrics]
) -> None:
    """Show the report on the run's page, with mean and deviation over the seeds where there are several.

    Args:
        evaluation: What evaluate wrote for the first seed, the one that is registered.
        first: What evaluate gave for it: its seed and figures.
        others: What evaluate gave for the further seeds, in any order.
        seeds: All seeds, the first one first.
        report: One HTML file that needs no network.
        metrics: Means over the seeds, and with several seeds the standard deviations.
    """
    from pathlib import Path

    from capnet.evaluation.seeds import figures_of, summarise, with_seeds
    from capnet.tasks import task

    with task({}):
        table = summarise(figures_of(first, others, seeds))
        page = with_seeds(Path(evaluation.path, "report.html").read_text(), table, seeds)
        Path(report.path).write_text(page)
        for name, value in table.figures().items():
            metrics.log_metric(name, value)
