"""The scores that a promotion compares: kept with every run, matched by the pictures' bytes, without rows a champion has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts import SCHEMA, Classes, check_schema, label_matrix, read_json, read_predictions, read_split, write_json
from capnet.errors import ContractError
from capnet.registry.policy import Policy
from capnet.registry.verdict import Rows, Verdict, compare, minimum

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FOLDER = "gate"  # among the artifacts of a run
TEST, SEEN, CLASSES = "test.parquet", "seen.parquet", "gate.json"
VARIANT = "capnet"
Rescore = Callable[["pd.DataFrame"], "np.ndarray"]


@dataclass(frozen=True)
class GateScores:
    """Test rows of one model: columns sha256, group (hashed), labels, unknown, scores [class]; ``seen``: sha256 and group of train and val rows."""

    classes: Mapping[str, Any]
    test: pd.DataFrame
    seen: pd.DataFrame

    @property
    def names(self) -> list[str]:
        return [item["name"] for item in self.classes["classes"]]

    @property
    def critical(self) -> set[str]:
        return {item["name"] for item in self.classes["classes"] if item["critical"]}

    @property
    def tail(self) -> list[str]:
        return [item["name"] for item in self.classes["classes"] if item["bucket"] == "tail"]


def gate_scores(split: Path, evaluation: Path, classes: Classes, content_hash: str = "") -> GateScores:
    """From the stages' folders, of the model with this content; raises ContractError where a test row has no served scores."""
    table, found = read_split(split / "split.parquet"), read_predictions(evaluation / "predictions.parquet")
    served = found[(found["variant"] == VARIANT) & (found["split"] == "test")].set_index("image_id")["scores"]
    rows = table[table["split"] == "test"].reset_index(drop=True)
    missing = [name for name in rows["image_id"] if name not in served.index]
    if missing or len(served) != len(rows):
        what = f"{len(served)} predictions for {len(rows)} test rows; without: {', '.join(missing[:5]) or 'none'}"
        raise ContractError(what, str(evaluation / "predictions.parquet"), "run `capnet evaluate` again")
    test = rows[["sha256", "labels", "unknown"]].assign(group=_hashed(rows["group"]), scores=served.loc[rows["image_id"]].to_numpy())
    others = table[table["split"].isin(("train", "val"))]
    items = [{"name": item.name, "bucket": item.bucket, "critical": item.critical} for item in classes.items]
    about = {"schema": SCHEMA, "classes": items} | ({"content_hash": content_hash} if content_hash else {})
    return GateScores(about, test, others[["sha256"]].assign(group=_hashed(others["group"])).reset_index(drop=True))


def _hashed(groups: pd.Series) -> list[str]:
    """Groups may be patients: only equality matters, so only a hash travels."""
    return [hashlib.sha256(value.encode()).hexdigest()[:16] if isinstance(value, str) and value else "" for value in groups]


def write_gate(folder: Path, scores: GateScores) -> None:
    """Three files for the run's artifacts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"labels": pa.list_(pa.int16()), "unknown": pa.list_(pa.int16()), "scores": pa.list_(pa.float32())}
    for name, frame in ((TEST, scores.test), (SEEN, scores.seen)):
        schema = pa.schema([(column, kinds.get(column, pa.string())) for column in sorted(frame.columns)])
        pq.write_table(pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False), folder / name, compression="zstd")
    write_json(folder / CLASSES, dict(scores.classes))


def read_gate(folder: Path) -> GateScores:
    """Raises ContractError where a file is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_json(folder / CLASSES)
    check_schema(content, folder / CLASSES)
    try:
        return GateScores(content, pq.read_table(folder / TEST).to_pandas(), pq.read_table(folder / SEEN).to_pandas())
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"scores for the gate cannot be read: {error}", str(folder), "register the model again") from None


def judge(
    candidate: GateScores, champion: GateScores | None, policy: Policy, rescore: Rescore | None = None, names: Mapping[str, str] | None = None
) -> Verdict:
    """The verdict on a candidate's test rows; without a champion only the minimum is asked for.

    Rows that the champion was trained or chosen on (same bytes or same group) are left out. ``rescore`` gives the champion's
    scores of rows it has none for (columns sha256); without it, or for other classes, the two are not comparable.
    """
    import numpy as np

    own = np.stack(candidate.test["scores"].tolist()).astype(np.float32)
    everything = _rows(candidate, np.ones(len(own), dtype=bool))
    rules = minimum(everything, own, policy)
    extra = {"policy": policy.model_dump(mode="json"), **(names or {})}
    if champion is None:
        return Verdict(tuple(rules), ("there is no champion to compare with",), False, len(own), extra)
    if champion.names != candidate.names:
        gone, new = sorted(set(champion.names) - set(candidate.names)), sorted(set(candidate.names) - set(champion.names))
        change = f"gone: {_some(gone)}; new: {_some(new)}" if gone or new else "the same in another order"
        note = f"not comparable: the champion knows other classes ({change})"
        return Verdict(tuple(rules), (note,), True, len(own), extra)

    seen = candidate.test["sha256"].isin(champion.seen["sha256"]) | candidate.test["group"].isin(set(champion.seen["group"]) - {""})
    fresh = ~seen.to_numpy()
    notes = [f"{int(seen.sum())} of {len(own)} test pictures are left out: the champion was trained or chosen on them or their group"] if seen.any() else []
    theirs, missing = _champion_scores(candidate.test[fresh], champion, rescore)
    if missing or not fresh.any():
        todo = f"the champion has no scores for {missing} of {int(fresh.sum())} test pictures" if missing else "no test picture is left"
        return Verdict(tuple(rules), (*notes, f"not comparable: {todo}"), True, int(fresh.sum()), extra)
    rows = _rows(candidate, fresh)
    if champion.tail not in ([], candidate.tail):
        rows = replace(rows, former_tail=np.isin(candidate.names, champion.tail))
    doubts = []
    dropped = sorted(champion.critical - candidate.critical)
    if dropped:
        doubts.append(f"classes that the champion marks as critical are not marked any more: {_some(dropped)}")
    return Verdict((*rules, *compare(rows, own[fresh], theirs, policy)), (*notes, *doubts), bool(doubts), int(fresh.sum()), extra)


def _champion_scores(rows: pd.DataFrame, champion: GateScores, rescore: Rescore | None) -> tuple[np.ndarray, int]:
    """float32 [picture, class] in the order of ``rows``, and how many rows have none."""
    import numpy as np

    known = dict(zip(champion.test["sha256"], champion.test["scores"], strict=True))
    missing = ~rows["sha256"].isin(known.keys()).to_numpy()
    if missing.any() and rescore is None:
        return np.empty((0, 0), dtype=np.float32), int(missing.sum())
    if missing.any() and rescore is not None:
        part = rows[missing]
        known |= dict(zip(part["sha256"], rescore(part), strict=True))
    return np.array([np.asarray(known[key], dtype=np.float32) for key in rows["sha256"]], dtype=np.float32), 0


def _rows(scores: GateScores, chosen: np.ndarray) -> Rows:
    import numpy as np

    from capnet.evaluation.bootstrap import unit_codes

    part, items = scores.test[chosen], scores.classes["classes"]
    unknown = label_matrix(part["unknown"], len(items))
    labels = label_matrix(part["labels"], len(items)) & ~unknown
    critical = np.array([bool(item["critical"]) for item in items])
    return Rows(labels, ~unknown, unit_codes(part["group"].tolist()), scores.names, [item["bucket"] for item in items], critical)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
