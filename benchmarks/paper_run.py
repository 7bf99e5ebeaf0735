"""One benchmark of the paper command: its settings, and what each step does."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.paper_lists import (
    COCO_LIST,
    UNCHANGED,
    Published,
    check_files,
    check_splits,
    check_test_counts,
    check_weights,
    find,
)
from capnet.config import Params, override, parse, settings_hash
from capnet.contracts import (
    known_labels,
    read_classes,
    read_json,
    read_split,
    replace_file,
    sha256_file,
    write_json,
)
from capnet.data.annotations.added import added_tables
from capnet.data.annotations.paths import DataFolder
from capnet.errors import ConfigError, DataError, GateError, Problem
from capnet.stages import STAGES, run

SECTIONS = ("ingest", "split", "validate", "graph", "train", "tte", "evaluate")
DRY = (
    "runtime.threads=1",
    "validate.few_positives=off",
    "validate.processes=1",
    "train.epochs=1",
    "train.gcn.hidden=32",
    "train.prompt.length=4",
    "evaluate.bootstrap=100",
)
COPIES = "pictures_in_one_split"  # the data check that published lists may fail
WORDS = "DRY RUN, figures mean nothing"


@dataclass
class Paper:
    """One benchmark: where its data, weights and results are, and what is published of it."""

    name: str
    data: Path
    out: Path
    weights: dict[str, Path | str]
    seeds: list[int]
    published: Published
    machine: dict[str, Any]
    models: dict[str, str]
    dry: bool
    hashes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unsure: bool = False  # whether the hash of some weights is not a published one

    def params(self, backbone: str, seed: int = 0) -> Params:
        """The preset as it is shipped, for one backbone and seed.

        Args:
            backbone: RN50 or ViT-B-16.
            seed: of training.

        Returns:
            Settings that differ from the preset in backbone, weights, data folder, machine and seed, and in
            train.out_of_fold, because the table needs no thresholds; for coco-lt also in the published list.

        Raises:
            ConfigError: the preset does not keep the last epoch, or takes validation rows.
        """
        from capnet.commands.preset import read

        changes = [f"{key}={value}" for key, value in self.machine.items()] + ["train.out_of_fold=false"]
        if self.name == "coco-lt":  # the preset draws a list; the papers' is published
            changes += ["split.method=published", "split.benchmark=coco-lt", f"ingest.train_list={COCO_LIST}"]
        raw = override(read(self.name).model_dump(mode="json", by_alias=True), [*changes, *(DRY if self.dry else ())])
        raw["backbone"] |= {"name": self.models[backbone], "pretrained": str(self.weights[backbone])}
        raw["data"]["root"] = str(self.data)
        raw["runtime"]["seed"] = seed
        raw["validate"]["reference"] = ""  # that of another data set
        params = parse(raw, f"preset {self.name}")
        if params.train.select != "last" or params.split.validation.source != "none":
            what = (
                f"preset {self.name} has train.select = {params.train.select}, split.validation.source ="
                f" {params.split.validation.source}"
            )
            raise ConfigError(
                what, "capnet/presets", "papers are compared on the last epoch without validation rows: last and none"
            )
        return params

    @property
    def first_backbone(self) -> str:
        """Any backbone, for what is the same for all of them."""
        return next(iter(self.weights))

    @property
    def settings_sha256(self) -> str:
        """Hash of all settings but those that say where data and weights are, which machine runs, and the seed."""
        params = self.params(self.first_backbone)
        return settings_hash(
            {**params.subset(SECTIONS), "format": params.data.format, "centre": params.backbone.centre}
        )

    # ------------------------------------------------------------ steps

    def check_weights(self) -> None:
        """Hash every weight file, and load one whose hash is not a published one.

        Raises:
            ConfigError: a hash is not the published one, or the weights cannot be loaded.
        """
        import open_clip

        from capnet.model.backbones import load_towers

        for backbone, source in self.weights.items():
            known = open_clip.list_pretrained_tags_by_model(self.models[backbone])
            self.hashes[backbone], note = check_weights(backbone, str(source), known)
            if not note:
                continue
            self.unsure = True
            self.notes.append(f"{backbone}: {note}")
            if Path(source).is_file():
                try:
                    load_towers(self.params(backbone).backbone)
                except DataError as error:
                    raise ConfigError(problems=error.problems) from None

    def check_lists(self) -> None:
        """Lists of ids, before any image is read; and that no table in the data folder changes labels or adds images.

        Raises:
            DataError: a list is not the published one, or there is such a table.
        """
        check_files(self.name, self.data, self.published)
        settings, folder = self.params(self.first_backbone).ingest, DataFolder(self.data)
        tables = [settings.corrections] if folder.has(settings.corrections) else []
        if tables := tables + added_tables(folder, settings)[0]:
            what = "it changes the published labels, or adds images to them"
            todo = "move it out of the data folder; figures on other labels do not compare with the papers'"
            raise DataError(problems=[Problem(what, str(self.data / table), todo) for table in tables])
        if self.name == "nus-wide":
            self.notes.append(
                "of NUS-WIDE only the lengths of its official lists are published: no ids and no counts were compared"
            )

    def run(self, stage: str, backbone: str = "", seed: int = 0) -> None:
        """A stage with the folders of this benchmark. Those before graph are the same for all backbones and seeds."""
        backbone = backbone or self.first_backbone
        folders = {
            "data": self.data,
            **{name: self.out / name for name in ("manifest", "split", "validation")},
            "graph": self.out / backbone / "graph",
            **{name: self.seed(backbone, seed) / name for name in ("model", "evaluation")},
        }
        inputs, outputs = STAGES[stage].inputs, STAGES[stage].outputs
        run(
            stage,
            self.params(backbone, seed),
            {name: folders[name] for name in inputs},
            {name: folders[name] for name in outputs},
        )

    def split(self) -> None:
        """Stage split; counts that are not the published ones are an error of the annotations."""
        try:
            self.run("split")
        except DataError as error:
            if not any(
                problem.where.startswith("split.benchmark") or "training counts" in problem.what
                for problem in error.problems
            ):
                raise
            lists = ", ".join(str(find(self.data, file.path)) for file in self.published.files)
            problems = [Problem(problem.what, problem.where, UNCHANGED) for problem in error.problems]
            raise DataError(
                problems=[*problems, Problem(f"so this is not the published list of {self.name}", lists, UNCHANGED)]
            ) from None

    def validate(self) -> None:
        """The data check; copies of an image in both splits are noted and stay, because the lists are published as they
        are.
        """
        try:
            self.run("validate")
        except GateError as error:
            if any(not problem.what.startswith(f"{COPIES}:") for problem in error.problems):
                shutil.rmtree(self.out / "validation", ignore_errors=True)
                raise

    def check_counts(self) -> None:
        """The images of both splits, and the labels of the test images; stage split compared the training counts."""
        table = read_split(self.out / "split" / "split.parquet")
        ids = {split: table.loc[table["split"] == split, "image_id"].tolist() for split in ("train", "test")}
        check_splits(self.name, ids, self.published, str(self.out / "split" / "split.parquet"))
        classes = read_classes(self.out / "split" / "classes.json")
        labels, _ = known_labels(table[table["split"] == "test"], len(classes))
        check_test_counts(dict(zip(classes.names, labels.sum(axis=0).tolist(), strict=True)), self.published)
        if self.published.splits and not self.published.test_counts:
            self.notes.append("labels of the test images were not compared with published counts")
        renamed = [
            item.name for item, prompt in zip(classes.items, classes.prompt_names, strict=True) if item.name != prompt
        ]
        if renamed:
            self.notes.append(
                f"classes.csv gives other words to {len(renamed)} classes ({', '.join(renamed[:5])}, ...), which"
                " changes zero-shot and prompts"
            )

    def check_results(self, note: bool) -> None:
        """Results that are there already were made with these settings, weights and lists.

        Args:
            note: write down what the results that follow are made with.

        Raises:
            ConfigError: they were not.
        """
        for backbone in self.weights:
            identity = {
                "settings": self.settings_sha256,
                "weights": self.hashes[backbone],
                "split": sha256_file(self.out / "split" / "split.parquet"),
                "classes": sha256_file(self.out / "split" / "classes.json"),
            }
            path = self.out / backbone / "identity.json"
            earlier = read_json(path) if path.is_file() else identity
            other = [key for key in identity if earlier.get(key) != identity[key]]
            if other:
                what = f"results of other {' and '.join(other)} are there, and one table never mixes them"
                raise ConfigError(what, str(path.parent), "choose another --out, or remove that folder")
            if note:
                write_json(path, identity)
        checks = read_json(self.out / "validation" / "validation.json")["checks"]
        copies = sum(check["observed"] for check in checks if check["name"] == COPIES and not check["success"])
        if copies:
            self.notes.append(f"{copies} images of the published lists are the same file in both splits")

    def train(self, backbone: str, seed: int) -> None:
        started = time.monotonic()
        self.run("train", backbone, seed)
        write_json(self.seed(backbone, seed) / "seconds.json", {"train": round(time.monotonic() - started, 1)})

    def table(self) -> str:
        """Write table.md and results.json; returns the Markdown."""
        from benchmarks.paper_table import different_precisions, document, measured, our_rows

        runs = []
        for backbone in self.weights:
            for seed in self.seeds:
                folder = self.seed(backbone, seed)
                seconds = read_json(folder / "seconds.json") if (folder / "seconds.json").is_file() else {}
                values = measured(folder / "evaluation", folder / "model", self.out / "split")
                precision = read_json(folder / "model" / "config.json")["precision"]
                runs.append(
                    {"backbone": backbone, "seed": seed, "precision": precision, "seconds": seconds, "measured": values}
                )
        facts = {
            "settings_sha256": self.settings_sha256,
            "seeds": self.seeds,
            "weights": self.hashes,
            "notes": self.notes + different_precisions(runs),
            "runs": runs,
        }
        params = self.params(self.first_backbone)
        text, content = document(self.name, our_rows(runs), facts, params, self.dry)
        replace_file(self.out / "table.md", text)
        write_json(self.out / "results.json", content | {"settings": params.model_dump(mode="json", by_alias=True)})
        return text

    def seed(self, backbone: str, seed: int) -> Path:
        """Folder of one run."""
        return self.out / backbone / f"seed{seed}"

    def sources(self) -> dict[str, str]:
        """Hashes of the files that say which images there are, with which labels, and what classes are called: ingest
        runs again where one has changed.
        """
        files = [find(self.data, file.path) for file in self.published.files] + [self.data / "classes.csv"]
        if self.name == "coco-lt":
            files += [
                self.data / "annotations/instances_train2017.json",
                self.data / "annotations/instances_val2017.json",
            ]
        if self.name == "nus-wide":  # no count is published that would show that these were replaced
            files += sorted((self.data / "Groundtruth/TrainTestLabels").glob("*.txt"))
        return {path.relative_to(self.data).as_posix(): sha256_file(path) for path in files if path.is_file()}
