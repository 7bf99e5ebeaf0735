"""What is read from the stages' folders: checks, content hash, figures, description."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.measured import measured

from capnet.commands.open_model import open_model
from capnet.config import Params
from capnet.contracts import make_classes, tree_hash
from capnet.errors import ContractError, GateError
from capnet.registry.candidate import content_hash, read_candidate
from capnet.registry.cards import description
from capnet.registry.figures import curves, figures, flat_params

Make = Callable[..., dict[str, Path]]


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_content_hash_is_the_sha256_of_sorted_names_and_hashes(make_outputs: Make) -> None:
    paths = make_outputs()
    files = {
        f"evaluation/{name}": paths["evaluation"] / name
        for name in ("thresholds.json", "per_class.csv", "evaluation.json")
    }
    for name in ("model.safetensors", "graph.safetensors", "classes.json", "config.json", "history.csv"):
        files[f"model/{name}"] = paths["model"] / name
    pairs = sorted([name, hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in files.items())
    assert content_hash(paths["model"], paths["evaluation"]) == hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def test_content_hash_sees_every_file_and_name_but_not_the_report_or_the_place(
    make_outputs: Make, tmp_path: Path
) -> None:
    paths = make_outputs()
    before = content_hash(paths["model"], paths["evaluation"])
    twin = shutil.copytree(paths["model"].parent, tmp_path / "another place")
    assert content_hash(twin / "model", twin / "evaluation") == before
    (paths["evaluation"] / "report.html").write_text("another report")
    assert content_hash(paths["model"], paths["evaluation"]) == before
    seen = {before}
    for path in (
        *sorted(paths["model"].iterdir()),
        *(paths["evaluation"] / name for name in ("evaluation.json", "per_class.csv", "thresholds.json")),
    ):
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(content_hash(paths["model"], paths["evaluation"]))
    assert len(seen) == 1 + 5 + 3
    (paths["model"] / "history.csv").rename(paths["model"] / "past.csv")
    assert content_hash(paths["model"], paths["evaluation"]) not in seen


def test_the_figures_of_another_model_are_refused(make_outputs: Make) -> None:
    """A model that was trained again, and not evaluated, was registered with the figures of the one before."""
    paths = make_outputs()
    read_candidate(**paths)
    _edit(paths["model"] / "config.json", selected_epoch=2)
    with pytest.raises(ContractError, match=r"measured with another model[\s\S]*evaluation.json[\s\S]*capnet evaluate"):
        read_candidate(**paths)
    folder = str(paths["model"].parent)
    with pytest.raises(ContractError, match="measured with another model"), open_model(folder, Params()):
        pass


def test_figures_that_do_not_say_whose_they_are_are_refused_and_serve_with_a_warning(
    make_outputs: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Before 28 November evaluation.json did not say it, and `register` took old figures for a new model."""
    paths = make_outputs()
    path = paths["evaluation"] / "evaluation.json"
    figures = json.loads(path.read_text())
    del figures["model_md5"]
    path.write_text(json.dumps(figures))
    with pytest.raises(ContractError, match=r"does not say with which model[\s\S]*json[\s\S]*capnet evaluate"):
        read_candidate(**paths)
    with open_model(str(paths["model"].parent), Params()):
        assert "does not say with which model it was measured" in caplog.text


def test_thresholds_of_a_folder_without_the_evaluation_may_be_another_models(
    make_outputs: Make, caplog: pytest.LogCaptureFixture
) -> None:
    paths = make_outputs()
    folder, warning = paths["model"].parent, "nothing says that .*thresholds.json are those of this model"
    with open_model(str(folder), Params()):
        assert not re.search(warning, caplog.text)
    (paths["evaluation"] / "evaluation.json").unlink()
    with open_model(str(folder), Params()) as (served, *_):
        assert served.names
        assert re.search(warning, caplog.text), "a warning, and it works"


def test_figures_and_checks_of_another_split_are_refused(make_outputs: Make) -> None:
    """Labels corrected after an evaluation were registered beside its figures, and a split that nobody had checked."""
    paths = make_outputs()
    files = {"validate": paths["validation"] / "validation.json", "evaluate": paths["evaluation"] / "evaluation.json"}
    for path in files.values():
        _edit(path, split_md5=tree_hash(paths["split"]))
    read_candidate(**paths)
    for stage, path in files.items():
        text = path.read_text()
        _edit(path, split_md5="another.dir")
        with pytest.raises(ContractError, match=rf"another split than that in[\s\S]*{path.name}[\s\S]*capnet {stage}"):
            read_candidate(**paths)
        path.write_text(text)


def test_a_split_that_the_data_check_refused_is_not_registered(make_outputs: Make) -> None:
    paths = make_outputs()
    severities = {"copies": "critical", "few": "warning"}
    checks = [{"name": name, "severity": severity, "success": False} for name, severity in severities.items()]
    _edit(paths["validation"] / "validation.json", checks=checks)
    read_candidate(**paths)
    _edit(paths["validation"] / "validation.json", success=False)
    with pytest.raises(GateError, match=r"refused this split: copies\n"):
        read_candidate(**paths)


def test_figures_are_named_for_the_metric_table(make_outputs: Make) -> None:
    paths = make_outputs(mAP=0.5)
    candidate = read_candidate(**paths)
    values = figures(candidate)
    assert values["mAP"] == 0.5
    assert values["tail_low"] == pytest.approx(0.35)
    assert values["zero_shot/head"] == pytest.approx(0.4)
    assert values["gain_high"] == 0.25
    assert values["slice-unseen-artwork/mAP"] == pytest.approx(0.4)
    assert values["CF1"] == 0.45, "at the chosen thresholds"
    flat = {name for name in values if "/" not in name}
    assert flat == {"CF1", "OF1", "gain", "gain_high", "gain_low", "head", "mAP", "mAP_high", "mAP_low"} | {
        "medium",
        "tail",
        "tail_high",
        "tail_low",
    }
    assert not [name for name in values if "-zero_shot" in name or name.startswith("single_view")]
    assert {name: value for name, value in values.items() if name.startswith("ap/")} == {
        "ap/traffic-light": 0.25,
        "ap/cat": 0.375,
        "ap/hund-welpe": 0.5,  # the fourth class has no AP and is left out
    }
    assert [values[f"support/{slug}"] for slug in ("traffic-light", "cat", "hund-welpe", "epee")] == [9.0] * 4
    assert not [name for name in values if name.startswith("recall/")], "what the table lacks is left out"
    assert candidate.headline == pytest.approx({"mAP": 0.5, "head": 0.6, "medium": 0.5, "tail": 0.4})


def test_slices_whose_names_differ_in_signs_alone_have_metrics_of_their_own(make_outputs: Make) -> None:
    paths = make_outputs()
    slices = {name: {"capnet": {"mAP": value}} for name, value in (("site a", 0.25), ("site-A", 0.5), ("site b", 0.75))}
    _edit(paths["evaluation"] / "evaluation.json", slices=slices)
    values = figures(read_candidate(**paths))
    assert {name: value for name, value in values.items() if name.startswith("slice-")} == {
        "slice-site-a/mAP": 0.25,
        "slice-site-a-2/mAP": 0.5,
        "slice-site-b/mAP": 0.75,
    }


def test_curves_leave_out_what_was_not_measured(make_outputs: Make) -> None:
    result = list(curves(read_candidate(**make_outputs(epochs=2))))
    assert result == [("train/loss", 1.0, 1), ("train/loss", 0.5, 2), ("val/mAP", pytest.approx(0.2), 2)]


def test_flat_params_name_every_setting() -> None:
    config = {
        "train": {"epochs": 3, "loss": {"name": "bce", "gamma": 0.0}},
        "tte": {},
        "c": [1, 2],
        "on": True,
        "text": "a photo",
    }
    assert flat_params(config) == {
        "train.epochs": "3",
        "train.loss.name": "bce",
        "train.loss.gamma": "0.0",
        "c": "[1, 2]",
        "on": "true",
        "text": "a photo",
    }


def test_flat_params_leave_out_what_a_blend_was_measured_to_gain() -> None:
    config = {"blend": {"weights": {"capnet": 1.0}, "gains": {"capnet": {"gain": 0.1, "low": 0.0}}, "chosen_on": "val"}}
    assert flat_params(config) == {"blend.weights.capnet": "1.0", "blend.chosen_on": "val"}


def test_description_names_figures_thresholds_and_weak_classes(make_outputs: Make) -> None:
    text = description(read_candidate(**make_outputs(mAP=0.5)))
    assert text.startswith("mAP 50.0 % over 3 of 4 classes, measured on 700 test pictures.\n")
    assert (
        "| Zero-shot | &emsp; 30.0 (25.0 to 35.0) | &emsp; 40.0 (35.0 to 45.0) | &emsp; 30.0 (25.0 to 35.0) | &emsp;"
        " 20.0 (15.0 to 25.0) |" in text
    )
    assert "1 head, 1 medium, 2 tail" in text
    assert (
        "objective `f1`, chosen on the validation pictures, valid only for 5 test-time views (expand 8 px, average of"
        " logits)" in text
    )
    assert "threshold of their own, because their held-out pictures alone do not show the objective, so a" in text
    assert "no positive or no negative test picture): `épée`." in text


def test_description_says_the_size_of_the_views_where_it_is_not_the_backbones_own(make_outputs: Make) -> None:
    paths = make_outputs()
    views = {"views": 5, "size": 160, "expand": 8, "average": "logits", "resize": "short"}
    _edit(paths["evaluation"] / "thresholds.json", views=views)
    # of another size than the model
    with pytest.raises(ContractError, match=r"thresholds hold for the test-time views .*160"):
        read_candidate(**paths)
    _edit(paths["model"] / "config.json", tte=views)
    measured(paths["model"].parent)
    assert "5 test-time views of 160 px (expand 8 px, average of logits)" in description(read_candidate(**paths))


def test_every_disagreement_is_told_at_once(make_outputs: Make) -> None:
    paths = make_outputs()
    _edit(
        paths["evaluation"] / "thresholds.json",
        class_fingerprint="of other classes",
        views={"views": 1, "expand": 8, "average": "logits"},
    )
    _edit(paths["evaluation"] / "evaluation.json", capnet={})
    with pytest.raises(ContractError) as caught:
        read_candidate(**paths)
    assert [problem.what for problem in caught.value.problems] == [
        "made for other classes",
        (
            "thresholds hold for the test-time views {'views': 1, 'expand': 8, 'average': 'logits'}, "
            "the model is scored with {'average': 'logits', 'decode': 'full', 'expand': 8, 'resize': 'short', "
            "'size': 0, 'views': 5}"
        ),
        "no mAP of the variant capnet",
    ]


def test_a_model_for_other_classes_than_the_split_is_refused(make_outputs: Make, tmp_path: Path) -> None:
    paths = make_outputs()
    other = make_outputs(tmp_path / "other", n_classes=3)
    with pytest.raises(ContractError, match="made for other classes"):
        read_candidate(**(paths | {"split": other["split"]}))


def test_all_missing_files_are_named(make_outputs: Make) -> None:
    paths = make_outputs()
    gone = [
        paths["model"] / "history.csv",
        paths["model"] / "model.safetensors",
        paths["evaluation"] / "evaluation.json",
    ]
    for path in gone:
        path.unlink()
    with pytest.raises(ContractError) as caught:
        read_candidate(**paths)
    assert [problem.where for problem in caught.value.problems] == [str(path) for path in gone]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name,value\ncat,1\n", "columns are missing: class, ap"),
        ("", "columns are missing: class, ap"),
        ("class,ap\ncat,0.5\ndog\n", "row 2 has more or fewer cells than the head"),
        ("class,ap\ncat,0.5,7\n", "row 1 has more or fewer cells than the head"),
        (f"class,ap\n{'x' * 200_000},1\n", "damaged, .*: field larger than"),
        ('class,ap\n"cat,0.5\n', "damaged, .*: unexpected end of data"),
    ],
)
def test_a_table_that_no_stage_writes_is_refused(make_outputs: Make, text: str, fault: str) -> None:
    paths = make_outputs()
    (paths["evaluation"] / "per_class.csv").write_text(text)
    with pytest.raises(ContractError, match=fault):
        read_candidate(**paths)


def test_slugs_of_long_names_fit_into_names_of_metrics_and_stay_different() -> None:
    long = "a spotted animal that looks to the left " * 8
    slugs = [
        item.slug for item in make_classes([long + "near", long + "far", "a b", "a-b", "猫", "犬", "ё" * 300]).items
    ]
    assert len(set(slugs)) == len(slugs)
    assert max(map(len, slugs)) <= 110, "with precision/ in front MLflow takes 250 characters"
    assert slugs[:4] == [slugs[0], f"{slugs[0]}-2", "a-b", "a-b-2"]
