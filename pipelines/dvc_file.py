"""Write into dvc.yaml which files of capnet/ each stage runs, read from the imports: `python -m pipelines.dvc_file`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capnet.stages import STAGES

DATA_FILES = {".html", ".css", ".js", ".json", ".md", ".yaml"}  # that a module may read, named in its source


@dataclass(frozen=True)
class Module:
    """One source file of capnet/.

    Attributes:
        path: from the repository's root.
        imports: dotted names, those inside functions too; imports for type checkers alone do not count.
        idle: a docstring and names such as __version__ at most, so that nothing can depend on it.
    """

    path: str
    imports: frozenset[str]
    idle: bool


def _imports(node: ast.AST, known: set[str]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield name if name in known else str(child.module)
        elif isinstance(child, ast.Call) and ast.unparse(child.func) == "import_module":
            yield from _named(child.args[0], known)
        else:
            yield from _imports(child, known)


def _named(argument: ast.expr, known: set[str]) -> Iterator[str]:
    """What import_module may import: a constant, or all that begins with the constant part of an f-string."""
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
    elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        prefix = str(argument.values[0].value)
        yield from (name for name in known if name.startswith(prefix))


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the package at ``root``/capnet, by dotted name."""
    paths = {}
    for path in sorted((root / "capnet").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        imports = frozenset(_imports(tree, set(paths)))
        idle = all(
            isinstance(item, ast.Expr)
            or (isinstance(item, ast.Assign) and ast.unparse(item.targets[0]).startswith("__"))
            for item in tree.body
        )
        modules[name] = Module(path.relative_to(root).as_posix(), imports, idle)
    return modules


def code_of(stage: str, modules: Mapping[str, Module], root: Path) -> list[str]:
    """The files of capnet/ that a stage runs, sorted: its step, all that this imports, the packages around them and
    the data files that these name, or that such a file names.
    """
    seen: set[str] = set()
    waiting = [STAGES[stage].module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += modules[name].imports & modules.keys()
            waiting += [name.rpartition(".")[0]] if "." in name else []
    code = {modules[name].path for name in seen if not modules[name].idle}
    sources = "".join((root / path).read_text() for path in code)
    data = {
        path for path in (root / "capnet").rglob("*.*") if path.suffix in DATA_FILES and path.parent.name != "presets"
    }
    while named := {path for path in data if path.name in sources}:
        code |= {path.relative_to(root).as_posix() for path in named}
        sources = "".join(path.read_text() for path in named)  # a template includes others
        data -= named
    return sorted(code)


def rewritten(text: str, root: Path) -> str:
    """``text`` of a dvc.yaml with the dependencies on code of every stage as the imports have them."""
    modules = read_modules(root)
    for name in STAGES:
        block = re.search(rf"^  {name}:\n.*?(?=^  \w|^\w|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        assert block is not None, f"dvc.yaml has no stage {name}"
        plain = re.sub(r"^      - capnet/\S+\n", "", block[0], flags=re.MULTILINE)
        code = "".join(f"      - {path}\n" for path in code_of(name, modules, root))
        text = text.replace(block[0], plain.replace("    params:\n", f"{code}    params:\n", 1))
    return text


def main() -> None:
    path = Path("dvc.yaml")
    path.write_text(rewritten(path.read_text(), Path()))


if __name__ == "__main__":
    main()
