"""KFP component fetch: a thin shim; what it does is in capnet/data/sources/source.py."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def fetch(params: dict, version: str, volume: str, data: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Find out which version of the images this run reads, and write it down as source.json.

    Args:
        params: Settings of section data.
        version: What the images are now, as far as the submitter knows; another value is another cache entry.
        volume: Folder that is mounted in every task; images below it are not copied.
        data: source.json; with a folder that no volume holds also its files.
        metrics: Number of files.
    """
    from pathlib import Path

    from capnet.data.sources.source import write_source
    from capnet.tasks import task

    with task(params) as prepared:
        metrics.log_metric("files", write_source(prepared.params.data, Path(data.path), volume).files)
