"""Imports run one way, and each heavy dependency has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

FOUNDATION = {"", "concurrency", "config", "contracts", "errors", "inline", "machine_faults", "pages", "progress"} | {
    *("redaction", "runtime", "section", "state", "streams", "yaml_text"),
}
LOSSES = "capnet.model.losses"  # a loss is one file, its settings included; so the settings read that package
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
    "__main__": {"cli"},
}
# Settings ask every reader for its section, so that a format is one file. They find the files by scanning the folder,
# which the graph of imports does not show; a reader in turn imports no more than settings, contracts and its own room.
READERS = "capnet.data.annotations.readers"
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


PRODUCT = ("capnet", "components", "pipelines", "benchmarks")
LONGEST = 300  # lines


def area(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def violations(imports: Mapping[str, frozenset[str]]) -> list[str]:
    """Every import that goes against the direction or through another door than its own."""
    result = []
    for module, names in imports.items():
        room = area(module)
        allowed = FOUNDATION if room in FOUNDATION else FOUNDATION | {room} | MAY_IMPORT[room]
        for name in sorted(names):
            top = name.split(".")[0]
            if top == "capnet" and area(name) not in allowed and not (room == "config" and name.startswith(LOSSES)):
                result.append(f"{module} imports {name}")
            doors = DOORS.get(top)
            if doors is not None and not any(module == door or module.startswith(f"{door}.") for door in doors):
                result.append(f"{module} imports {name}")
    return result


def test_imports_run_one_way(modules: dict[str, Any]) -> None:
    assert violations({name: module.imports for name, module in modules.items()}) == []


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
        ("capnet.config.train", "capnet.model.capnet"),
        ("capnet.contracts", "capnet.model.losses"),
    ],
)
def test_the_check_sees_a_wrong_import(module: str, name: str) -> None:
    assert violations({module: frozenset({name})}) == [f"{module} imports {name}"]


def circles(imports: Mapping[str, frozenset[str]]) -> set[frozenset[str]]:
    """The groups of modules that import each other, directly or through others: strongly connected components."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = (imports[waiting.pop()] & imports.keys()) - seen
            seen |= new
            waiting += new
        reached[start] = seen
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in imports
        if name in reached[name]
    }


def test_settings_reach_readers_and_these_reach_no_further(modules: dict[str, Any], repository: Path) -> None:
    from capnet.config.data import READER_PACKAGE

    assert READER_PACKAGE == READERS
    for name, module in modules.items():
        if name.startswith(f"{READERS}."):
            at_import = ast.parse((repository / module.path).read_text()).body
            own = [item for item in at_import if isinstance(item, ast.Import | ast.ImportFrom)]
            names = {f"{getattr(item, 'module', '')}.{alias.name}".lstrip(".") for item in own for alias in item.names}
            data = {item for item in names if item.startswith("capnet.data.")}
            assert all(item.startswith("capnet.data.annotations.") for item in data), name
            assert not any(item.startswith(READERS) for item in module.imports), f"{name} imports another reader"


@pytest.mark.parametrize("package", [LOSSES, "capnet.model.backbones"])
def test_what_settings_cards_and_reports_read_of_the_model_is_light(package: str) -> None:
    code = f"import sys, {package}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "open_clip"} & set(result.stdout.split())


def test_no_files_import_each_other_in_a_circle(modules: dict[str, Any]) -> None:
    everywhere = {name: module.imports for name, module in modules.items()}
    assert circles(everywhere) == set(), "imports inside functions count too"


def test_the_search_for_circles_sees_one() -> None:
    chain = {"a": frozenset({"b"}), "b": frozenset({"c", "json"}), "c": frozenset[str](), "d": frozenset({"a"})}
    assert circles(chain) == set()
    assert circles(chain | {"c": frozenset({"a"})}) == {frozenset({"a", "b", "c"})}


def test_no_product_file_is_longer_than_300_lines(repository: Path) -> None:
    files = [path for room in PRODUCT for path in (repository / room).rglob("*.py")]
    assert len(files) > 100
    lengths = {path.relative_to(repository).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name for name, length in lengths.items() if length > LONGEST} == set(), "divide it by ideas"


def test_the_library_does_not_print(repository: Path) -> None:
    result = []
    for path in sorted((repository / "capnet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                result.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert result == []


def test_torch_files_are_read_without_pickle(repository: Path) -> None:
    result = []
    for path in sorted((repository / "capnet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                arguments = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if arguments.get("weights_only") != "True":
                    result.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert result == []


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
