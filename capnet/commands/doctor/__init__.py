"""`capnet doctor`: its options; data.py and machine.py check this machine, cluster.py, nodes.py and platform.py a
cluster, findings.py reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from capnet.cluster import names
from capnet.commands.options import secret_options, settings_options
from capnet.errors import CapnetError, DataError


@click.command(context_settings={"show_default": True})
@settings_options()
@click.option("--cluster", is_flag=True, help="Check the cluster of kubectl's context; the options below are for that.")
@click.option(
    "--namespace",
    default=names.NAMESPACE,
    help="Where the pipelines' pods run: your profile, if Kubeflow has several.",
)
@click.option("--kfp-namespace", default=names.NAMESPACE, help="Where Kubeflow Pipelines is installed.")
@click.option("--service-account", default=names.SERVICE_ACCOUNT, help="Account of the tasks.")
@secret_options
@click.option("--accelerator-type", default=names.ACCELERATOR, help="Resource name of the GPU.")
@click.option("--accelerator-count", default=0, type=click.IntRange(0), help="GPUs that a run will ask for.")
@click.option("--cpu", default="2", help="CPUs that train, evaluate and predict will ask for.")
@click.option("--memory", default="8Gi", help="Memory that these will get.")
@click.option("--nodes", default=1, type=click.IntRange(1), help="Nodes that a run will train on.")
@click.option("--training-runtime", default=names.RUNTIME, help="Runtime of Kubeflow Trainer for several nodes.")
def command(params: str, settings: tuple[str, ...], cluster: bool, **needs: Any) -> None:
    """Check the data: is it complete, does its remote answer, which credentials are in use; where state and MLflow's
    store are, and whether they can be used. Takes at most 5 seconds.

    With --cluster: secrets and their keys, volumes, the tasks' account, whether the namespace takes their pods, GPUs,
    Kubeflow Pipelines, which failures it tries again, the network. Takes at most 10 seconds; no value of a secret is
    shown.

    \b
    Examples:
      capnet doctor
      capnet doctor --set data.root=s3://bucket/birds
      capnet doctor --cluster --accelerator-count 1
      capnet doctor --cluster --nodes 2
    """
    from capnet.commands.doctor.findings import Needs, examine, report
    from capnet.config import load

    loaded = load(Path(params), settings)
    data = loaded.data
    if cluster:
        from capnet.cluster.kubernetes_api import ClusterError
        from capnet.commands.doctor.cluster import DEADLINE, cluster_checks

        report(examine(cluster_checks(Needs(data.root, data.anonymous, **needs)), DEADLINE), ClusterError)
    else:
        from capnet.commands.doctor.data import DEADLINE, data_checks
        from capnet.commands.doctor.machine import machine_checks

        of_machine = machine_checks(loaded.register_)
        findings = examine({**data_checks(data), **of_machine}, DEADLINE)
        faulty = {item.about for item in findings if item.problem}
        report(findings, CapnetError if faulty <= of_machine.keys() else DataError)
