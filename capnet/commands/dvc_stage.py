"""A stage that DVC runs. DVC hashes settings, code and inputs when the command ends, and would call the outputs of
earlier ones up to date: so none of these may change meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capnet.config.params import read_sections
from capnet.contracts.files import sha256_files
from capnet.errors import ConfigError, ContractError, some
from capnet.stages import STAGES, process_rank


@contextmanager
def refusing_changes(name: str, params: Path, saves_reference: bool = False) -> Iterator[None]:
    """Refuse the end of a stage whose settings or dependencies are others than at its start; only where DVC runs it.

    Args:
        name: of the stage.
        params: the settings file.
        saves_reference: whether the stage writes into the folder reference, which it depends on.

    Raises:
        ConfigError: a section that the stage reads was edited.
        ContractError: code, an output of an earlier stage or the folder reference changed.
    """
    stage = os.environ.get("DVC_STAGE", "")  # its name in dvc.yaml
    if not stage or process_rank() != 0:
        yield
        return
    sections = read_sections(params)
    data = sections.get("data")  # not yet checked
    paths = [] if saves_reference else _dependencies(data.get("root") if isinstance(data, dict) else None)
    hashes = _hashes(paths)
    yield
    sections_now, hashes_now = read_sections(params), _hashes(paths)
    todo = f"`dvc repro` runs it again; to keep its outputs, undo the change and `dvc commit -f {stage}`"
    edited = [section for section in STAGES[name].sections if sections.get(section) != sections_now.get(section)]
    if edited:
        what = f"{', '.join(edited)} changed while stage {name} ran: its outputs are of the settings before"
        raise ConfigError(what, str(params), todo)
    changed = [path for path in paths if hashes[path] != hashes_now[path]]
    if changed:
        what = f"changed while stage {name} ran, so its outputs may be of what was there before"
        raise ContractError(what, some(changed), todo)


def _dependencies(images: object) -> list[str]:
    """What the stage that DVC runs depends on, by dvc.yaml: code, outputs of earlier stages, the folder reference.
    Without the folder ``images``: ingest sees to its label tables, and later stages know an image by its hash.
    """
    from yaml import YAMLError

    from capnet.yaml_text import read_yaml

    # sub/dvc.yaml:train where DVC was started above, train@3 of a matrix
    name = os.environ["DVC_STAGE"].rpartition(":")[2].partition("@")[0]
    try:
        stage = read_yaml(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
        return [item for item in stage.get("do", stage)["deps"] if "${" not in item and item != images]
    except (AttributeError, LookupError, OSError, TypeError, ValueError, YAMLError):  # of another form, or with a wdir
        return []


def _hashes(paths: list[str]) -> dict[str, str]:
    """Hash of each file, and of each folder's files; "" of what is not there."""
    hashes = dict.fromkeys(paths, "")
    for name in paths:
        path = Path(name)
        with suppress(OSError):
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            hashes[name] = sha256_files({str(file): file for file in files if file.parent.name != "__pycache__"})
    return hashes
