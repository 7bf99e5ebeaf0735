"""The components: their READMEs, how thin they are, and what they and the pipelines may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from capnet.stages import STAGES
from components import readme


@pytest.mark.parametrize("name", readme.names())
def test_readme_tables_are_written_from_the_signature(name: str) -> None:
    text = (readme.FOLDER / name / "README.md").read_text()
    assert readme.rewritten(name, text) == text, "run: python -m components.readme"
    assert text.startswith(f"# {name}\n")


@pytest.mark.parametrize("name", readme.names())
def test_a_shim_is_thin(name: str) -> None:
    folder = readme.FOLDER / name
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"__init__.py", "component.py", "README.md"}
    function = next(
        node for node in ast.parse((folder / "component.py").read_text()).body if isinstance(node, ast.FunctionDef)
    )
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) <= 14, "logic belongs into capnet/, where it can be tested"
    assert not any(
        isinstance(node, ast.If | ast.While | ast.Try | ast.FunctionDef)
        for node in ast.walk(function)
        if node is not function
    )
    modules = {str(node.module) for node in ast.walk(function) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"pathlib"} | {module for module in modules if module.startswith("capnet.")}
    if name in STAGES:
        assert "capnet.stages" in modules


@pytest.mark.parametrize("folder", ["components", "pipelines"])
def test_only_these_folders_import_kfp_and_neither_the_inside_of_a_stage(folder: str, repository: Path) -> None:
    allowed = {
        "components": (
            "capnet.errors",
            "capnet.machine_faults",
            "capnet.stages",
            "capnet.tasks",
            "capnet.data.sources.source",
            "capnet.evaluation.seeds",
            "capnet.registry",
            "capnet.promotion",
            "capnet.serving",
            "capnet.tracking",
            "capnet.cluster",
            "components",
        ),
        "pipelines": (
            "capnet.cluster.names",
            "capnet.cluster.proxies",
            "capnet.commands.options",
            "capnet.config",
            "capnet.contracts",
            "capnet.errors",
            "capnet.machine_faults",
            "capnet.stages",
            "capnet.tasks",
            "capnet.cluster.trainjob_spec",
            "capnet.data",
            "capnet.tracking.database",
            "capnet.tracking.store",
            "components",
            "pipelines",
        ),
    }[folder]
    for path in sorted((repository / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                if name.split(".")[0] in ("capnet", "components", "pipelines", "tests"):
                    assert name.startswith(allowed), f"{path.relative_to(repository)} imports {name}"
                assert name.split(".")[0] not in ("torch", "mlflow", "dvc", "boto3", "great_expectations"), path
