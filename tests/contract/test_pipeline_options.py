"""Options of pipelines.submit that a cluster would refuse, or that would be passed over, end the command before
anything starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from contract import argo_rules, kubernetes_names, kubernetes_rules

from capnet.commands import doctor
from capnet.errors import ConfigError, DataError
from pipelines import compiling, submit
from pipelines.checks import MOST_BYTES, MOST_SHARDS, check_size, toleration_advice

LOCK = ("--lock", str(compiling.GOLDEN_LOCK))


def output(*arguments: str) -> str:
    """What the command says when it refuses."""
    result = CliRunner().invoke(submit.command, list(arguments))
    assert result.exit_code, result.output
    assert result.exception is None or isinstance(result.exception, (ConfigError, SystemExit)), result.exception
    return f"{result.output}{result.exception or ''}"


def test_what_runs_on_this_machine_is_not_also_only_printed_or_put_off() -> None:
    assert "--dry-run is for a cluster" in output("training", "--local", "subprocess", "--dry-run")
    assert "--schedule is for a cluster" in output("training", "--local", "subprocess", "--schedule", "0 3 * * 1")
    assert "no run starts now" in output("training", *LOCK, "--schedule", "0 3 * * 1", "--wait")


def test_a_seed_that_stands_there_twice_is_named() -> None:
    assert "a seed is named twice" in output("training", *LOCK, "--dry-run", "--set", "train.seeds=[1,0,1]")


@pytest.mark.parametrize("pipeline", ["training", "prediction"])
def test_an_address_with_a_password_is_refused_before_it_is_asked(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.arguments.data_version", lambda data: pytest.fail(f"asked {data.root}"))
    root = "data.root=git+https://user:pass-of-mine@host.example/x"
    assert "holds a credential" in output(pipeline, *LOCK, "--set", root)


@pytest.mark.parametrize(
    "option",
    [("--processes-per-node", "4"), ("--training-runtime", "TrainingRuntime/mine"), ("--start-minutes", "5")],
)
def test_options_of_several_nodes_are_not_passed_over_where_one_trains(option: tuple[str, str]) -> None:
    assert f"{option[0]} is for several nodes" in output("training", *LOCK, "--dry-run", *option)


@pytest.mark.parametrize("option", [("--pictures", "new"), ("--model", "models:/birds/4"), ("--shards", "2")])
def test_options_of_prediction_are_not_passed_over_in_training(option: tuple[str, str]) -> None:
    assert f"{option[0]} is for prediction" in output("training", *LOCK, "--dry-run", *option)


@pytest.mark.parametrize(
    "option",
    [
        ("--memory", "lots"),
        ("--memory", "8GB"),
        ("--memory", "8K"),
        ("--memory", ""),
        ("--cpu", "two"),
        ("--cpu", "0"),
        ("--shared-memory", "2 Gi"),
        ("--shared-memory", "-1Gi"),
    ],
)
def test_a_quantity_that_kubernetes_would_refuse_is_refused(option: tuple[str, str]) -> None:
    text = output("training", *LOCK, "--dry-run", *option)
    assert f"{option[1]!r} is no quantity of Kubernetes" in text
    assert option[0] in text


@pytest.mark.parametrize(
    "option", [("--memory", "8"), ("--memory", "500m"), ("--memory", "1000Ki"), ("--shared-memory", "2")]
)
def test_memory_without_its_unit_is_refused(option: tuple[str, str]) -> None:
    assert kubernetes_rules.amount(option[1]) < 2**20, "Kubernetes takes it, and no container starts"
    text = output("training", *LOCK, "--dry-run", *option)
    assert f"{option[1]!r} is less than 1Mi of memory\n  where: {option[0]}" in text


WRONG_GPUS = (
    *("", "gpu", "nvidia.com/", "/gpu", "NVIDIA.com/gpu", "nvidia.com/gpu/2", "nvidia..com/gpu", "nvidia-.com/gpu"),
    *("requests.nvidia.com/gpu", f"{'a' * 245}/gpu"),
)


@pytest.mark.parametrize("kind", WRONG_GPUS)
def test_a_kind_of_gpu_that_no_pod_can_ask_for_is_refused(kind: str) -> None:
    assert list(kubernetes_rules.resources({"limits": {kind: "0"}}, "task"))
    text = output("training", *LOCK, "--dry-run", "--accelerator-type", kind)
    assert f"{kind!r} is no kind of GPU\n  where: --accelerator-type" in text


@pytest.mark.parametrize(
    "change",
    [
        {"operater": "Exists"},
        {"operator": "exists"},
        {"effect": "noSchedule"},
        {"operator": "Exists", "value": "present"},
        {"key": "", "value": "present"},
        {"key": "my gpu"},
        {"value": "NVIDIA L4"},
        {"effect": "NoSchedule", "tolerationSeconds": 60},
        {"effect": "NoExecute", "tolerationSeconds": "60"},
        {"value": 1},
        {"key": "my..domain/gpu"},
        {"operator": "Gt"},
        {"operator": "Lt", "value": "high"},
        {"operator": "Gt", "value": "007"},
    ],
)
def test_a_toleration_that_no_pod_can_have_is_refused(change: dict[str, Any]) -> None:
    of_another_type = "operater" in change or change.get("value") == 1 or change.get("tolerationSeconds") == "60"
    assert of_another_type or list(kubernetes_rules.toleration({"key": "gpu", **change}))
    item = json.dumps({"key": "gpu", **change})
    text = output("training", *LOCK, "--dry-run", "--tolerations", f"[{item}]")
    assert f"{item} is no toleration of a pod\n  where: --tolerations" in text


@pytest.mark.parametrize(
    "item",
    [
        {"operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
)
def test_a_toleration_that_a_pod_can_have_is_taken(item: dict[str, Any]) -> None:
    assert list(kubernetes_rules.toleration(item)) == []
    assert not toleration_advice(item)


def test_a_toleration_that_compares_is_left_to_the_cluster() -> None:
    """From 1.35 on behind a feature gate, TaintTolerationComparisonOperators, which no option can see."""
    assert not toleration_advice({"key": "gpu-memory", "operator": "Gt", "value": "40", "effect": "NoSchedule"})


@pytest.mark.parametrize("runtime", ["", "My Runtime", "trainingruntime/mine", "TrainingRuntime/", "/mine", "a/b/c"])
def test_a_training_runtime_that_no_cluster_has_is_refused(runtime: str) -> None:
    text = output("training", *LOCK, "--dry-run", "--nodes", "2", "--training-runtime", runtime)
    assert f"{runtime!r} is no training runtime\n  where: --training-runtime" in text


@pytest.mark.parametrize("runtime", ["torch-mine", "ClusterTrainingRuntime/torch-mine", "TrainingRuntime/mine"])
def test_a_training_runtime_of_cluster_or_namespace_is_taken(runtime: str) -> None:
    arguments = ["training", *LOCK, "--dry-run", "--nodes", "2", "--training-runtime", runtime]
    assert CliRunner().invoke(submit.command, arguments).exit_code == 0


def test_gpus_that_the_settings_leave_idle_are_refused() -> None:
    arguments = ("training", *LOCK, "--dry-run", "--accelerator-count", "2")
    text = output(*arguments, "--set", "runtime.device=cpu")
    assert "2 GPUs asked for, and runtime.device = cpu uses none\n  where: --accelerator-count, runtime.device" in text
    assert CliRunner().invoke(submit.command, [*arguments, "--set", "runtime.device=cuda"]).exit_code == 0
    assert CliRunner().invoke(submit.command, [*arguments[:-2], "--set", "runtime.device=cpu"]).exit_code == 0


@pytest.mark.parametrize("label", ["gpu=NVIDIA L4", "a b=c", "=x", "my_domain/gpu=yes", "my.-domain/gpu=yes", "gpu=-1"])
def test_a_label_that_no_node_can_have_is_refused(label: str) -> None:
    key, _, value = label.partition("=")
    assert list(kubernetes_names.labels({key: value}, "nodeSelector"))
    text = output("training", *LOCK, "--dry-run", "--node-selector", label)
    assert f"'{label}' can be no label of a node\n  where: --node-selector" in text


@pytest.mark.parametrize("where", [LOCK, ("--local", "subprocess")])
def test_more_parts_than_their_list_has_room_for_are_refused_with_the_number(where: tuple[str, ...]) -> None:
    text = output("prediction", *where, "--shards", str(MOST_SHARDS + 1))
    assert f"{MOST_SHARDS + 1} parts" in text
    assert f"at most {MOST_SHARDS}" in text
    result = CliRunner().invoke(submit.command, ["prediction", *LOCK, "--dry-run", "--shards", str(MOST_SHARDS)])
    assert result.exit_code == 0, result.exception
    assert f"up to {MOST_SHARDS};" in CliRunner().invoke(submit.command, ["--help"]).output


@pytest.mark.parametrize(
    "option", [("--state-claim", "My_Claim"), ("--data-claim", "-a"), ("--data-claim", "a.b"), ("--state-claim", "tmp")]
)
def test_a_claim_whose_name_no_volume_of_a_pod_can_have_is_refused(option: tuple[str, str]) -> None:
    text = output("prediction", *LOCK, "--dry-run", *option)
    assert f"{option[1]!r} can be no claim of a task" in text
    assert option[0] in text
    assert "mounted twice" in output("training", *LOCK, "--dry-run", "--data-volume", "--data-claim", "capnet-state")


def test_parameters_that_are_too_long_together_are_refused_with_the_longest() -> None:
    long = {"validate": {"reference": "x" * 70_000}, "register": {"policy": "y" * 60_000}, "split": {}}
    with pytest.raises(ConfigError, match=r"130047 bytes, and 120000 fit\n  where: validate: 70023, register: 60020"):
        check_size(long)
    check_size(long | {"register": {}})
    with pytest.raises(ConfigError, match="120000 fit"):
        check_size({"register": {"policy": '"' * 40_000}})  # a variable holds them as JSON in JSON
    assert MOST_BYTES < argo_rules.MOST_ARGUMENT - 10_000, "what surrounds them"


WRONG_NAMES = [
    ("--pull-secret", "My_Key"),
    ("--git-secret", ""),
    ("--s3-secret", "capnet..s3"),
    ("--s3-secret", "capnet-.s3"),
    ("--mlflow-secret", "a" * 254),
    ("--service-account", "Capnet"),
]


@pytest.mark.parametrize("option", WRONG_NAMES)
def test_a_name_that_no_object_can_have_is_refused(option: tuple[str, str]) -> None:
    assert f"{option[1]!r} is no name of an object" in output("prediction", *LOCK, "--dry-run", *option)


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = output("training", *LOCK, "--dry-run", "--memory", "lots", "--s3-secret", "")
    assert "'lots'" in text
    assert "--s3-secret" in text
    for name in ("accelerator-count", "processes-per-node", "nodes", "retries"):
        assert f"'--{name}': -1" in output("training", *LOCK, "--dry-run", f"--{name}", "-1")
    for minutes in ("-1", "0", "nan", "inf"):
        assert "start-minutes = " in output("training", *LOCK, "--dry-run", "--nodes", "2", "--start-minutes", minutes)
    for hours in ("0.0001", "nan", "inf"):
        assert "time-outs" in output("training", *LOCK, "--dry-run", "--hours", hours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        ("--cpu", "500m"),
        ("--memory", "1.5Gi"),
        ("--memory", "16G"),
        ("--shared-memory", "512Mi"),
        ("--s3-secret", "a.b-1"),
        ("--memory", "16e9"),
        ("--accelerator-type", "nvidia.com/mig-1g.5gb"),
        (
            "--tolerations",
            '[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}]',
        ),
        ("--tolerations", '[{"key": "gpu", "value": "yes", "operator": "", "effect": ""}]'),
        ("--node-selector", "node-role.kubernetes.io/gpu="),
        ("--node-selector", "nvidia.com/gpu.product=NVIDIA-L4"),
    ],
)
def test_what_kubernetes_takes_is_taken(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(submit.command, ["training", *LOCK, "--dry-run", *option])
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize(
    "arguments", [("training", "--set", "data.root=nowhere"), ("prediction", "--pictures", "nowhere")]
)
def test_a_missing_folder_of_images_starts_no_run_on_this_machine(arguments: tuple[str, ...], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    error = CliRunner().invoke(submit.command, [*arguments, "--local", "subprocess", "--runs", str(runs)]).exception
    assert isinstance(error, DataError)
    assert "there is no such folder\n  where: nowhere" in str(error)
    assert not runs.exists()


@pytest.mark.parametrize("runs", ["a file", "a file/runs"])
def test_runs_that_cannot_be_written_are_refused(runs: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "images").mkdir()
    images = ("--set", f"data.root={tmp_path / 'images'}")
    text = output("training", "--local", "subprocess", *images, "--runs", str(tmp_path / runs))
    assert "runs cannot be written there: " in text
    assert f"where: {tmp_path / runs}\n  to do: name another folder: --runs" in text


def test_runs_are_a_folder_of_this_machine() -> None:
    text = output("training", "--local", "subprocess", "--runs", "s3://bucket/runs")
    assert "'s3://bucket/runs' is no path on this machine" in text


def test_an_address_without_a_scheme_is_named() -> None:
    text = output("training", *LOCK, "--host", "localhost:8080", "--data-volume", "--set", "data.root=/mnt/data/birds")
    assert "the server's address 'localhost:8080' has no scheme" in text


@pytest.mark.parametrize("command", [submit.command, doctor.command])
def test_no_help_says_that_nothing_is_the_default(command: click.Command) -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    assert "--pull-secret" in text
    assert '[default: ""]' not in " ".join(text.split())
