"""Imports run one way, and each heavy dependency has one door."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

FOUNDATION = {"", "errors", "config", "contracts", "inline", "progress", "state", "runtime", "yaml_text"}
MAY_IMPORT = {  # the foundation and the room itself are always allowed
    "data": set[str](),
    "model": set[str](),
    "training": {"data", "model"},
    "evaluation": {"data", "model"},
    "tracking": set[str](),
    "promotion": {"evaluation", "tracking"},
    "serving": {"data", "model", "evaluation", "tracking", "promotion"},
    "registry": {"data", "model", "training", "evaluation", "tracking", "promotion", "serving"},
    "steps": {"data", "model", "training", "evaluation", "tracking", "promotion", "serving", "registry"},
    "stages": {"steps", "tracking"},
    "tasks": {"data", "promotion"},
    "cluster": {"stages", "tasks"},
    "commands": {
        "data",
        "model",
        "training",
        "evaluation",
        "tracking",
        "promotion",
        "serving",
        "registry",
        "stages",
        "cluster",
    },
    "cli": {"stages", "commands", "registry"},
}
DOORS = {
    "kfp": (),
    "dvc": ("capnet.data.sources.dvc_versions",),
    "boto3": ("capnet.data.sources.s3",),
    "great_expectations": ("capnet.data.checks.expectations",),
    "mlflow": ("capnet.tracking", "capnet.registry", "capnet.promotion", "capnet.serving"),
    "kubernetes": ("capnet.cluster.kubernetes_api",),
    "pickle": (),
    "cloudpickle": (),
    "joblib": (),
    "dill": (),
    "torchmetrics": (),
    "typer": (),
}


def area(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def violations(imports: Mapping[str, frozenset[str]]) -> list[str]:
    """Every import that goes against the direction or through another door than its own."""
    found = []
    for module, names in imports.items():
        room = area(module)
        allowed = FOUNDATION if room in FOUNDATION else FOUNDATION | {room} | MAY_IMPORT[room]
        for name in sorted(names):
            top = name.split(".")[0]
            if top == "capnet" and area(name) not in allowed:
                found.append(f"{module} imports {name}")
            doors = DOORS.get(top)
            if doors is not None and not any(module == door or module.startswith(f"{door}.") for door in doors):
                found.append(f"{module} imports {name}")
    return found


def test_imports_run_one_way(modules: dict[str, Any]) -> None:
    assert violations({module.name: module.imports for module in modules.values()}) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("capnet.model.gcn", "capnet.data.images.views"),
        ("capnet.training.trainer", "capnet.evaluation.metrics"),
        ("capnet.evaluation.metrics", "capnet.training.trainer"),
        ("capnet.contracts", "capnet.stages"),
        ("capnet.registry.register", "capnet.steps.register"),
        ("capnet.commands.preset", "capnet.steps.train"),
        ("capnet.training.trainer", "mlflow"),
        ("capnet.data.splits.long_tail", "great_expectations.core"),
        ("capnet.steps.train", "kfp"),
        ("capnet.state", "pickle"),
    ],
)
def test_the_check_sees_a_wrong_import(module: str, name: str) -> None:
    assert violations({module: frozenset({name})}) == [f"{module} imports {name}"]


def test_no_module_imports_itself_in_a_circle(modules: dict[str, Any]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in modules[name].at_import & modules.keys():
                visit(target, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_the_library_does_not_print(repository: Path) -> None:
    found = []
    for path in sorted((repository / "capnet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert found == []


def test_torch_files_are_read_without_pickle(repository: Path) -> None:
    found = []
    for path in sorted((repository / "capnet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                arguments = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if arguments.get("weights_only") != "True":
                    found.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert found == []


def test_every_third_party_import_is_named_in_pyproject(modules: dict[str, Any], repository: Path) -> None:
    from tomllib import loads

    packages = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit_learn", "open_clip": "open_clip_torch"}
    project = loads((repository / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    declared = {
        "".join(c if c.isalnum() else "_" if c in "-_" else " " for c in item).split()[0].lower() for item in named
    }
    used = (
        {name.split(".")[0] for module in modules.values() for name in module.imports}
        - sys.stdlib_module_names
        - {"capnet"}
    )
    assert {packages.get(name, name) for name in used} <= declared
