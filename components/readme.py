"""`python -m components.readme` writes the tables of inputs and outputs into every component's README.md."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import docstring_parser

from components.images import DATA, TRAIN

FOLDER = Path(__file__).parent
BEGIN = "<!-- inputs and outputs: written by python -m components.readme -->"
END = "<!-- end of inputs and outputs -->"
IMAGES = {DATA: "data", TRAIN: "train"}


def names() -> list[str]:
    """Folders that hold a component."""
    return sorted(path.parent.name for path in FOLDER.glob("*/component.py"))


def component(name: str) -> Any:
    """The KFP component of a folder."""
    return getattr(import_module(f"components.{name}.component"), name)


def tables(name: str) -> str:
    """Markdown of what the component takes and gives, from its signature and docstring."""
    spec = component(name).component_spec
    parsed = docstring_parser.parse(component(name).python_func.__doc__)
    meanings = {item.arg_name: " ".join((item.description or "").split()) for item in parsed.params}
    if parsed.returns:
        meanings["Output"] = " ".join((parsed.returns.description or "").split())
    image = IMAGES[spec.implementation.container.image]
    lines = [BEGIN, "", f"Image: `{image}`.", "", *_table("input", spec.inputs or {}, meanings)]
    if spec.outputs:
        lines += ["", *_table("output", spec.outputs, meanings)]
    return "\n".join([*lines, "", END])


def _table(kind: str, items: Mapping[str, Any], meanings: Mapping[str, str]) -> list[str]:
    rows = [f"| {kind} | type | meaning |", "|---|---|---|"]
    return rows + [f"| `{name}` | {_type(item.type)} | {meanings[name]} |" for name, item in items.items()]


def _type(name: str) -> str:
    short = name.removeprefix("system.").split("@")[0]
    return {"Dict": "dict", "List": "list", "String": "str", "Integer": "int", "Float": "float", "Boolean": "bool"}.get(
        short, short
    )


def rewritten(name: str, text: str) -> str:
    """``text`` of a README with fresh tables."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{tables(name)}{after}"


def main() -> None:
    for name in names():
        path = FOLDER / name / "README.md"
        path.write_text(rewritten(name, path.read_text()))


if __name__ == "__main__":
    main()
