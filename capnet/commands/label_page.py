"""The page of `capnet label`: which of the predicted images it shows, and with which labels."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from capnet.errors import ConfigError, some

if TYPE_CHECKING:
    import pandas as pd

    from capnet.serving.engine import Served

NAMED = 20  # classes in a message
SUGGESTED = 6  # classes shown with an image, at least: those that are ticked, then the most probable


def chosen_rows(path: Path, suspect: str, most: int) -> pd.DataFrame:
    """Rows of a table of predictions, those of images that could be read.

    Args:
        path: of the table, in Parquet.
        suspect: name of the class whose highest scores are chosen; "" for the first rows.
        most: rows, at most.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from capnet.serving.output import SCORE

    columns = ["path", "fault", *([f"{SCORE}{suspect}"] if suspect else [])]
    listed = pq.read_table(path, columns=columns).filter(pc.field("fault") == "")
    if suspect:
        listed = listed.sort_by([(columns[-1], "descending")])
    chosen = listed["path"][:most]
    rows = pq.read_table(path, filters=pc.field("path").isin(chosen)).to_pandas()
    order = pc.index_in(pa.array(rows["path"]), chosen.combine_chunks()).to_numpy()
    return rows.iloc[order.argsort()].reset_index(drop=True)


def suggestions(table: pd.DataFrame, served: Served, common: Container[str]) -> list[dict[str, Any]]:
    """What the page shows of each image.

    Args:
        table: predictions.
        served: the model.
        common: classes of the model that may be given.

    Returns:
        ``path`` and ``labels``: name, probability as text and whether it is filled in; these first, then the most
        probable, SUGGESTED at least. Filled in are the labels that the model gives, and those that are more probable
        than not: thresholds for a precision give hardly any.
    """
    from capnet.serving.output import SCORE

    scores = table[[f"{SCORE}{name}" for name in served.names]].to_numpy()
    probabilities = served.probabilities(scores)
    filled_in = (scores >= served.class_thresholds) | (probabilities > 0.5)
    items = []
    for path, row, is_filled in zip(table["path"], probabilities, filled_in, strict=True):
        order = [int(c) for c in (-row - is_filled).argsort(kind="stable") if served.names[c] in common]
        count = max(SUGGESTED, int(is_filled.sum()))
        labels = [(served.names[c], f"{row[c]:.2f}", bool(is_filled[c])) for c in order[:count]]
        items.append({"path": path, "labels": labels})
    return items


def common_classes(of_model: Sequence[str], classes: Sequence[str], suspect: str, model: str) -> set[str]:
    """The classes that the model knows and people may give.

    Args:
        of_model: classes of the model.
        classes: those of the annotations.
        suspect: the class whose images are asked for, or "".
        model: its name.

    Raises:
        ConfigError: there are none, or ``suspect`` is none of them.
    """
    annotated = set(classes)
    common = [name for name in of_model if name in annotated]
    if not common:
        raise ConfigError("the model knows no class of the annotations", model, "name another model: --model")
    if suspect and suspect not in common:
        what = f"no class {suspect!r} in both the model and the annotations"
        raise ConfigError(what, "--class", f"in both are {some(common, NAMED)}")
    return set(common)


def require_class(suspect: str, classes: Sequence[str]) -> None:
    """Refuse ``suspect`` (ConfigError), unless it is empty or one of the annotations' ``classes``."""
    if suspect and suspect not in classes:
        close = get_close_matches(suspect, classes, n=1)
        todo = f"did you mean {close[0]!r}?" if close else f"the classes are: {some(classes, NAMED)}"
        raise ConfigError(f"no class {suspect!r} in the annotations", "--class", todo)


def folder_group(name: str, prefix: str) -> str:
    """The group of an image with ``--group-from-folder``: the first folder it is in, such as a camera's, whatever
    folders are inside that one.

    Args:
        name: the image, below the folder that is asked for.
        prefix: what its path begins with in the data folder, as ``prefix_of`` says.
    """
    folders = PurePosixPath(name).parts[:-1]
    return folders[0] if folders else PurePosixPath(prefix).name


def row_of(path: str, group: str, suspect: str, keeps_group: bool) -> dict[str, str]:
    """Path, group and split of an image in the table that the page saves.

    Args:
        path: of the image in the data folder.
        group: what the options say.
        suspect: the class whose images are asked for, or "".
        keeps_group: it keeps the group that the annotations have, whatever the options say: ingest gives it that one.
    """
    split = "train" if suspect and not group and not keeps_group else ""
    return {"path": path, "group": "" if keeps_group else group, "split": split}


def stem_of(prefix: str) -> str:
    """What the table's file name begins with: letters and digits of the images' folder, in any alphabet.

    Args:
        prefix: what paths of the images begin with in the data folder.
    """
    name = normalize("NFC", PurePosixPath(prefix).name).lower()
    return re.sub(r"[\W_]+", "-", name).strip("-") or "images"


def page(
    items: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    not_in_model: Sequence[str],
    stem: str,
    separator: str,
    model: str,
) -> str:
    """A page that saves a table by itself.

    Args:
        items: of each image path, labels (see ``suggestions``), split, group, source (a small copy) and link.
        classes: names that may be given.
        not_in_model: those among them that the model does not know, so that people must type them.
        stem: what the table's file name begins with; the time of saving follows.
        separator: setting ``ingest.separator``.
        model: name of the model.
    """
    from capnet.pages import page_templates

    rows = [{name: item[name] for name in ("path", "split", "group")} for item in items]
    table = {"classes": classes, "separator": separator, "stem": stem, "rows": rows}
    template = page_templates(Path(__file__).parent).get_template("label.html")
    return template.render(items=items, table=table, not_in_model=not_in_model, model=model)
