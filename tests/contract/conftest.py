"""The import graph of capnet/, read from the source: imports inside functions count, imports for type checkers do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Module:
    """One source file: dotted ``name``, ``path`` from the repository's root, imported names, those at module level apart.

    ``idle``: a docstring and names such as __version__ at most, so that nothing can depend on it.
    """

    name: str
    path: str
    imports: frozenset[str]
    at_import: frozenset[str]
    idle: bool


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(node: ast.AST, known: set[str], inside_functions: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield name if name in known else str(child.module)
        elif inside_functions and isinstance(child, ast.Call) and ast.unparse(child.func) == "import_module":
            yield from _named(child.args[0], known)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, known, inside_functions)


def _named(argument: ast.expr, known: set[str]) -> Iterator[str]:
    """What import_module may import: a constant, or all that begins with the constant part of an f-string."""
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
    elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        prefix = str(argument.values[0].value)
        yield from (name for name in known if name.startswith(prefix))


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the package at root/capnet, by dotted name."""
    paths = {}
    for path in sorted((root / "capnet").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        everywhere, at_import = (frozenset(_imports(tree, set(paths), inside)) for inside in (True, False))
        idle = all(isinstance(item, ast.Expr) or (isinstance(item, ast.Assign) and ast.unparse(item.targets[0]).startswith("__")) for item in tree.body)
        modules[name] = Module(name, path.relative_to(root).as_posix(), everywhere, at_import, idle)
    return modules


@pytest.fixture(scope="session")
def modules(repository: Path) -> dict[str, Module]:
    return read_modules(repository)
