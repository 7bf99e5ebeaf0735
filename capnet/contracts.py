"""Every file that crosses a stage: its schema, one reader, one writer, fingerprints. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.errors import ContractError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

SCHEMA = 1
SPLITS = ("train", "val", "test")
BUCKETS = ("head", "medium", "tail")
VARIANTS = ("capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe")
MANIFEST_COLUMNS = (
    "image_id",
    "path",
    "labels",
    "unknown",
    "width",
    "height",
    "sha256",
    "group",
    "slice",
    "given_split",
)
OPTIONAL_COLUMNS = ("sequence",)  # frames of one burst; only there where a format has them
PREDICTION_COLUMNS = ("image_id", "split", "slice", "variant", "scores")
LONGEST_SLUG = 100  # MLflow takes 250 characters for a metric's name, a file system 255 bytes


# ---------------------------------------------------------------- files


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: bytes | str) -> None:
    """Write beside ``path`` and rename, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(beside, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes; NaN is refused."""
    replace_file(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises ContractError where the file is missing or damaged."""
    if not path.is_file():
        raise ContractError("a stage's output is missing", str(path), "run the stage that writes it, or `dvc repro`")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ContractError(f"not valid JSON: {error}", str(path), "run the stage that writes it again") from None


# ---------------------------------------------------------------- classes.json


@dataclass(frozen=True)
class ClassInfo:
    """One label. ``train_count`` and ``bucket`` are set by the split stage (-1 and "" before)."""

    name: str
    prompt_name: str
    slug: str
    critical: bool = False
    train_count: int = -1
    bucket: str = ""


@dataclass(frozen=True)
class Classes:
    """The ordered labels; their order is the order of every column of scores."""

    items: tuple[ClassInfo, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.items]

    @property
    def prompt_names(self) -> list[str]:
        return [item.prompt_name for item in self.items]

    @property
    def train_counts(self) -> np.ndarray:
        """int64 [class]."""
        import numpy as np

        return np.array([item.train_count for item in self.items], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """sha256 over the ordered names: equal only for the same classes in the same order."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()

    def prompt_fingerprint(self, template: str, weight_hash: str) -> str:
        """sha256 over prompt names, template and backbone weights: what a label graph depends on."""
        return hashlib.sha256(json.dumps([self.prompt_names, template, weight_hash]).encode()).hexdigest()

    def with_counts(self, counts: Sequence[int], buckets: tuple[int, int]) -> Classes:
        """The same classes with training counts: head from ``buckets[0]`` on, tail below ``buckets[1]``."""
        head, tail = buckets
        return Classes(
            tuple(
                replace(item, train_count=int(n), bucket="head" if n >= head else "tail" if n < tail else "medium")
                for item, n in zip(self.items, counts, strict=True)
            )
        )


def slugify(name: str) -> str:
    """Up to LONGEST_SLUG lower-case ASCII letters, digits and hyphens: safe in file names and metric names."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return (
        re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_SLUG].rstrip("-")
        or hashlib.sha256(name.encode()).hexdigest()[:8]
    )


def make_classes(
    names: Sequence[str], prompt_names: Mapping[str, str] | None = None, critical: Sequence[str] = ()
) -> Classes:
    """Classes in the given order with unique slugs; ``prompt_names`` overrides the name in prompts."""
    items, used = [], set()
    for name in names:
        base = slug = slugify(name)
        number = 2
        while slug in used:
            slug = f"{base}-{number}"
            number += 1
        used.add(slug)
        items.append(ClassInfo(name, (prompt_names or {}).get(name) or name, slug, name in critical))
    return Classes(tuple(items))


def write_classes(path: Path, classes: Classes) -> None:
    write_json(
        path,
        {
            "schema": SCHEMA,
            "class_fingerprint": classes.fingerprint,
            "classes": [asdict(item) for item in classes.items],
        },
    )


def read_classes(path: Path, expected_fingerprint: str = "") -> Classes:
    """Read classes.json; raises ContractError for another schema, a broken or an unexpected fingerprint."""
    content = read_json(path)
    check_schema(content, path)
    try:
        classes = Classes(tuple(ClassInfo(**item) for item in content["classes"]))
    except (KeyError, TypeError) as error:
        raise ContractError(
            f"not a class list: {error}", str(path), "run `capnet ingest` and `capnet split` again"
        ) from None
    if classes.fingerprint != content.get("class_fingerprint"):
        raise ContractError(
            "class names were edited by hand", str(path), "edit data/classes.csv instead and run `dvc repro`"
        )
    if expected_fingerprint and classes.fingerprint != expected_fingerprint:
        raise ContractError(
            "made for other classes", str(path), "run `dvc repro`: all stages must see the same class list"
        )
    return classes


def check_schema(content: Any, path: Path) -> None:
    """Raise ContractError unless ``content`` is a mapping of this program's schema version."""
    found = content.get("schema") if isinstance(content, Mapping) else None
    if found is None or int(found) != SCHEMA:
        raise ContractError(
            f"schema version {found!r}, this program reads {SCHEMA}", str(path), "run the stage that writes it again"
        )


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Everything that stage evaluate measured: evaluation.json of its output folder.

    Args:
        folder: what `capnet evaluate` wrote.

    Returns:
        Means by variant (fractions of 1), their differences, slices, calibration, and how all that was measured.

    Raises:
        ContractError: The file is missing, damaged or of another schema.
    """
    path = folder / "evaluation.json"
    if not path.is_file() and (folder / "metrics.json").is_file():
        what = "an older capnet wrote this folder: it has metrics.json, but no evaluation.json"
        raise ContractError(what, str(folder), "run `capnet evaluate` again")
    content: dict[str, Any] = read_json(path)
    check_schema(content, path)
    return content


# ---------------------------------------------------------------- tables


def _manifest_schema(frame: pd.DataFrame, with_split: bool) -> Any:
    import pyarrow as pa

    text, ids = pa.string(), pa.list_(pa.int16())
    kinds = {"labels": ids, "unknown": ids, "width": pa.int32(), "height": pa.int32()}
    optional = [name for name in OPTIONAL_COLUMNS if name in frame.columns]
    names = [*MANIFEST_COLUMNS, *optional, *(["split"] if with_split else [])]
    return pa.schema([(name, kinds.get(name, text)) for name in names])


def _write_table(path: Path, frame: pd.DataFrame, schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False).replace_schema_metadata(
        {"capnet_schema": str(SCHEMA)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, beside)
    os.replace(beside, path)


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ContractError("a stage's output is missing", str(path), "run the stage that writes it, or `dvc repro`")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"not a Parquet file: {error}", str(path), "run the stage that writes it again") from None
    check_schema({"schema": (table.schema.metadata or {}).get(b"capnet_schema", b"0").decode()}, path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ContractError(
            f"columns are missing: {', '.join(missing)}", str(path), "run the stage that writes it again"
        )
    frame: pd.DataFrame = table.to_pandas()
    return frame


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """manifest.parquet: one row a picture (MANIFEST_COLUMNS; group, slice and given_split may be null, and what was not
    measured; OPTIONAL_COLUMNS).
    """
    _write_table(path, frame, _manifest_schema(frame, with_split=False))


def read_manifest(path: Path) -> pd.DataFrame:
    return _read_table(path, MANIFEST_COLUMNS)


def write_split(path: Path, frame: pd.DataFrame) -> None:
    """split.parquet: manifest columns and ``split`` (train, val, test), the only table read from there on."""
    _write_table(path, frame, _manifest_schema(frame, with_split=True))


def read_split(path: Path) -> pd.DataFrame:
    return _read_table(path, (*MANIFEST_COLUMNS, "split"))


def write_predictions(path: Path, frame: pd.DataFrame) -> None:
    """predictions.parquet: image_id, split, slice, variant, scores (list<float32>, in class order, in [0, 1])."""
    import pyarrow as pa

    kinds = {"scores": pa.list_(pa.float32())}
    _write_table(path, frame, pa.schema([(name, kinds.get(name, pa.string())) for name in PREDICTION_COLUMNS]))


def read_predictions(path: Path) -> pd.DataFrame:
    return _read_table(path, PREDICTION_COLUMNS)


def label_matrix(lists: Sequence[Sequence[int]] | pd.Series, n_classes: int) -> np.ndarray:
    """bool [row, class] from lists of class indices (column ``labels`` or ``unknown``)."""
    import numpy as np

    matrix = np.zeros((len(lists), n_classes), dtype=bool)
    lengths = [len(item) for item in lists]
    if sum(lengths):
        rows = np.repeat(np.arange(len(lists)), lengths)
        matrix[rows, np.concatenate([np.asarray(item, dtype=np.int64) for item in lists])] = True
    return matrix


# ---------------------------------------------------------------- tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """A safetensors file with JSON metadata and the schema version, in one entry: the library writes several in any
    order.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    content = {"schema": SCHEMA, "metadata": dict(metadata)}
    replace_file(path, save(plain, metadata={"capnet": json.dumps(content, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by write_tensors; raises ContractError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ContractError("a stage's output is missing", str(path), "run the stage that writes it, or `dvc repro`")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("capnet", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ContractError(
            f"not a safetensors file: {error}", str(path), "run the stage that writes it again"
        ) from None
    content = json.loads(text)
    check_schema(content, path)
    return tensors, content["metadata"]


def read_cached_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """Tensors of a cache file; None where there is none or where another version of this program wrote it."""
    try:
        return read_tensors(path)[0]
    except ContractError:
        return None


@dataclass(frozen=True)
class LabelGraph:
    """graph.safetensors: adjacency [class, class], un-normalised text features [class, embed]."""

    adjacency: torch.Tensor
    text_features: torch.Tensor
    # source, top_k, s, tau, normalisation, template, backbone, weight_hash, both fingerprints
    metadata: Mapping[str, Any]


def write_graph(path: Path, graph: LabelGraph) -> None:
    write_tensors(path, {"adjacency": graph.adjacency, "text_features": graph.text_features}, graph.metadata)


def read_graph(path: Path, classes: Classes) -> LabelGraph:
    """Read graph.safetensors; raises ContractError where it was made for other classes."""
    tensors, metadata = read_tensors(path)
    if metadata.get("class_fingerprint") != classes.fingerprint or tensors["adjacency"].shape[0] != len(classes):
        raise ContractError(
            "the label graph was made for other classes",
            str(path),
            "run `dvc repro`, or `capnet graph` after `capnet split`",
        )
    return LabelGraph(tensors["adjacency"], tensors["text_features"], metadata)


# ---------------------------------------------------------------- folders


def tree_hash(root: Path) -> str:
    """DVC's md5 of a folder ('....dir'): of the JSON list of (md5, relative path), sorted by path."""
    entries = []
    for path in root.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                entries.append(
                    {"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": path.relative_to(root).as_posix()}
                )
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
