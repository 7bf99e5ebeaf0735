"""What was chosen on held-out images, in words: the blend that is served, and the thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capnet.errors import counted, some
from capnet.evaluation.report.words import as_float, interval, percent, points

SELDOM = 0.02  # of a class's held-out positives
RARELY_RIGHT = 0.1  # of the labels that a class is given on held-out images
NONE_CHOSEN = (
    "There were no held-out pictures with labels to choose thresholds on, so every class has 0.5, and scores are not"
    " calibrated: split.validation.source: train or train.out_of_fold: true gives held-out scores."
)
MEMBER_NAMES = {
    "capnet": "CapNet's trained parts",
    "class_head": "the class head",
    "linear_probe": "a linear probe",
    "zero_shot": "zero-shot",
}


def chosen_on(source: Any, otherwise: str = "?") -> str:
    """The images that thresholds or a blend were chosen on, in words; ``otherwise`` where there were none."""
    return {
        "val": "the validation pictures",
        "out_of_fold": "out-of-fold scores of the pictures it was trained on",
    }.get(str(source), otherwise)


def blend_in_words(blend: Mapping[str, Any]) -> list[str]:
    """What is served and what the choice gained, in sentences; none where nothing was chosen."""
    weights = blend.get("weights")
    if not weights:
        return []
    shares = {MEMBER_NAMES.get(name, name): weight for name, weight in weights.items() if weight}
    where = chosen_on(blend.get("chosen_on"), "held-out pictures")
    listed = ", ".join(f"{round(100 * weight) or 'less than 1'} % {name}" for name, weight in shares.items())
    if len(shares) > 1 and max(shares.values()) - min(shares.values()) < 0.005:
        listed = f"{', '.join(shares)}, in equal shares"
    sentence = f"What is served averages logits: {listed}. The shares were chosen on {where}"
    gains = []
    for name, item in blend.get("gains", {}).items():
        if weights.get(name) != 1:
            span = interval({f"gain_{end}": item.get(end) for end in ("low", "high")}, "gain", signed=True)
            gained = points(item.get("gain")) + (f" ({span})" if span else "")
            gains.append(f"{gained} over {MEMBER_NAMES.get(name, name)}")
    return [sentence + (f", where the difference is, in points of mAP: {'; '.join(gains)}." if gains else ".")]


def were_chosen(thresholds: Mapping[str, Any]) -> bool:
    """Whether thresholds were chosen at all: with no rows to choose them on, every class has 0.5.

    Args:
        thresholds: the content of thresholds.json, or the section ``threshold`` of evaluation.json.
    """
    return bool(thresholds.get("source") != "none")


def borrowers(thresholds: Mapping[str, Any]) -> list[str]:
    """Names of the classes that borrow a pooled threshold; none where no thresholds were chosen."""
    if not were_chosen(thresholds):
        return []
    return [str(item["name"]) for item in thresholds.get("classes", ()) if item.get("borrowed")]


def objectives_in_words(content: Mapping[str, Any]) -> str:
    """What the thresholds in the content of thresholds.json are for."""
    critical = content.get("critical_objective")
    return str(content.get("objective", "?")) + (f", for critical classes {critical}" if critical else "")


def groups_in_words(content: Mapping[str, Any]) -> list[str]:
    """What counts as one where thresholds are to reach a recall or a precision for other groups, in sentences."""
    objectives = objectives_in_words(content)
    counted_once = {"recall>=": "positives of one group", "precision>=": "labels given in one group"}
    return [
        f"All {what}, such as a camera site or a patient, count as one; the figures below count every picture."
        for kind, what in counted_once.items()
        if kind in objectives
    ]


def threshold_notes(content: Mapping[str, Any]) -> list[str]:
    """What thresholds do not reach, in sentences: classes that are not shown to reach their objective; those that are
    hardly ever recognised or, with F1, hardly ever right; and critical classes whose own held-out images stay below a
    recall that is only reached together with other classes, or on average over groups. Or that none were chosen.

    Args:
        content: thresholds.json.
    """
    if not were_chosen(content):
        return [NONE_CHOSEN]
    notes, wrong, unseen = [], [], []
    shortfalls, never = dict[str, list[Mapping[str, Any]]](), dict[str, list[str]]()
    for item in sorted(content["classes"], key=lambda item: -(item.get("positives") or 0)):
        objective = _objective(content, item)
        kind, _, share = objective.partition(">=")
        if not item.get("reached", True) and share:
            shortfalls.setdefault(objective, []).append(item)
        elif kind != "recall" and as_float(item.get("recall")) < SELDOM:
            never.setdefault(objective, []).append(str(item["name"]))
        elif not share and as_float(item.get("precision")) < RARELY_RIGHT:
            if item["positives"]:
                wrong.append(f"{item['name']} ({percent(item['precision'])} % right)")
            else:
                unseen.append(str(item["name"]))
        elif "objective" in item and kind == "recall" and as_float(item.get("recall")) < float(share):
            who = "classes that share a threshold reach together" if item["borrowed"] else "its groups reach on average"
            notes.append(
                f"Critical class {item['name']}: recall {percent(item['recall'])} % of {item['positives']} held-out"
                f" positives, below {objective}, which {who}."
            )
    for objective, items in shortfalls.items():
        silent = [str(item["name"]) for item in items if as_float(item.get("recall")) < SELDOM]
        names = some([str(item["name"]) for item in items])
        whom, setting = _classes_with(content, objective)
        verb = "is" if len(items) == 1 else "are"
        note = f"{len(items)} of {whom} {verb} not shown to reach {objective} by held-out pictures: {names}."
        if silent:
            more = f"; {setting}: f1 gives more labels" if objective.startswith("precision") else ""
            note += f" Hardly ever recognised: {some(silent)}{more}."
        notes.append(note)
    for objective, silent in never.items():
        whom, setting = _classes_with(content, objective)
        are = "is" if len(silent) == 1 else "are"
        other = "recall>=0.9" if objective == "f1" else "f1"
        notes.append(
            f"{len(silent)} of {whom} {are} hardly ever recognised on held-out pictures: {some(silent)}. More labelled"
            f" pictures may help; {setting}: {other} gives more labels, and more wrong ones."
        )
    whom, setting = _classes_with(content, "f1") if wrong or unseen else ("", "")
    if wrong:
        note = f"Labels of {len(wrong)} of {whom} are nearly always wrong on held-out pictures: {some(wrong)}."
        notes.append(f"{note} {setting}: precision>=0.5 gives fewer labels.")
    if unseen:
        note = f"No held-out picture shows {len(unseen)} of {whom}: {some(unseen)}."
        notes.append(f"{note} Whether labels of these are right was not checked; more labelled pictures are needed.")
    return notes


def _objective(content: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    return str(item.get("objective", content["objective"]))


def _classes_with(content: Mapping[str, Any], objective: str) -> tuple[str, str]:
    """The classes with this objective, counted in words, and the setting that it is from."""
    items = [item for item in content["classes"] if _objective(content, item) == objective]
    are_critical = all("objective" in item for item in items)
    kind = "critical " if are_critical else ""
    other = " that are not critical" if not are_critical and len(items) < len(content["classes"]) else ""
    setting = f"evaluate.threshold.{'critical_objective' if are_critical else 'objective'}"
    return counted(len(items), f"{kind}class{other}", f"{kind}classes{other}"), setting
