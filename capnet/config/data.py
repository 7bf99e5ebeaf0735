"""Sections data, ingest, split and validate: which images, which labels, which rows."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field, create_model, field_validator, model_validator

from capnet.section import InsidePath, Int, Section, Share

READER_PACKAGE = "capnet.data.annotations.readers"
ReaderSettings = TypeVar("ReaderSettings", bound=Section)


def registered_readers() -> dict[str, type[Section] | None]:
    """Name and class of settings of every reader of annotations; None where a reader has no settings of its own."""
    names = sorted(item.name for item in iter_modules(import_module(READER_PACKAGE).__path__))
    return {name: getattr(import_module(f"{READER_PACKAGE}.{name}"), "Settings", None) for name in names}


READERS = registered_readers()
if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(READERS)]


class Data(Section):
    format: Format = Field(
        "csv", description="how the labels are written: csv is a table (labels.csv), the others as published"
    )
    root: str = Field(
        "data",
        min_length=1,
        description=(
            "folder with the images, s3://BUCKET/PREFIX, or git+URL of a repository whose data.dvc names them"
        ),
    )
    revision: str = Field(
        "", description="for a git repository: branch, tag or commit of the data version; empty: its default branch"
    )
    path: str = Field("data", min_length=1, description="for a git repository: the folder with the images in it")
    links: Literal["inside", "anywhere"] = Field(
        "inside", description="where symbolic links below data.root may lead: inside it only, or anywhere"
    )
    anonymous: bool = Field(False, description="read a public bucket without credentials")
    cache_gigabytes: float = Field(
        50.0,
        gt=0,
        description=(
            "largest size of the copies of remote images in the state folder; the longest unused are deleted first"
        ),
    )
    connections: Int = Field(16, ge=1, le=256, description="remote files fetched at a time")


class IngestBase(Section):
    """What every reader may use; Ingest adds a section for each reader that has settings."""

    labels: InsidePath = Field("labels.csv", description="label table inside data.root: .csv, .csv.gz or .parquet")
    classes: InsidePath = Field(
        "classes.csv", description="optional table inside data.root: name, prompt_name, critical"
    )
    corrections: InsidePath = Field(
        "corrections.csv",
        min_length=1,
        description="optional table inside data.root of labels that people corrected: capnet review",
    )
    added: InsidePath = Field(
        "added", description="optional folder inside data.root, of tables of images labelled later: capnet label"
    )
    separator: str = Field("|", min_length=1, max_length=1, description="character between labels")
    empty_cell: Literal["unknown", "negative"] = Field(
        "unknown", description="tables with one column a class: what an empty cell says"
    )
    train_list: InsidePath = Field(
        "", description="file inside data.root of training image ids, one a line, for split.method published"
    )
    test_list: InsidePath = Field(
        "", description="file inside data.root of test image ids, one a line, for split.method published"
    )
    images: Literal["decode", "header", "listed"] = Field(
        "decode",
        description=(
            "decode to the last byte, read size and hash only, or open none and take width, height, sha256 from the"
            " table"
        ),
    )
    bad_images: Share = Field(
        0.01,
        description=(
            "share of images that may be missing or broken: they are left out and named; beyond it ingest stops"
        ),
    )

    def of(self, kind: type[ReaderSettings]) -> ReaderSettings:
        """The section of the reader whose class of settings is ``kind``."""
        return next(value for _, value in self if isinstance(value, kind))


if TYPE_CHECKING:
    Ingest = IngestBase
else:
    Ingest = create_model(
        "Ingest",
        __base__=IngestBase,
        __module__=__name__,
        **{name: (kind, kind()) for name, kind in READERS.items() if kind is not None},
    )


class Pareto(Section):
    max: Int = Field(800, ge=1, description="reference count of the first class")
    min: Int = Field(1, ge=0, description="reference count towards which the last classes fall")
    shape: float = Field(6.0, gt=0, description="Pareto shape b (Wu et al., ECCV 2020: 6)")

    @model_validator(mode="after")
    def _falling(self) -> Pareto:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}, so the curve would rise")
        return self


class Exponential(Section):
    max: Int = Field(500, ge=1, description="reference count of the first class")
    ratio: float = Field(100.0, ge=1, description="imbalance: reference count of the first class over that of the last")


class Validation(Section):
    source: Literal["train", "pool", "none"] = Field(
        "train", description="validation rows when none are given: held out of train, left over by the draw, or none"
    )
    share: Share = Field(0.2, description="validation rows, as a share of the training rows")
    cap: Share = Field(
        0.2, description="most rows that may come from the left-over pool, as a share of the training rows"
    )


class RequirePositives(Section):
    train: Int = Field(1, ge=0, description="fewest positives of a class among the training rows")
    val: Int = Field(0, ge=0, description="fewest positives of a class among the validation rows; given ones only warn")
    test: Int = Field(
        0, ge=0, description="fewest positives of a class among the test rows; a given test set only warns"
    )


class Split(Section):
    method: Literal["natural", "pareto", "exponential", "published"] = Field(
        "natural",
        description=(
            "natural keeps every row, pareto and exponential draw a long-tailed list, published takes ingest.train_list"
        ),
    )
    pareto: Pareto = Pareto()
    exponential: Exponential = Exponential()
    benchmark: Literal["none", "voc-lt", "coco-lt"] = Field(
        "none", description="refuse a split whose training counts are not the published ones"
    )
    validation: Validation = Validation()
    test_share: Share = Field(
        0.2, description="share of the rows without a given split that becomes the test set when none is given"
    )
    reference: str = Field(
        "reference/split.csv",
        description=(
            "file in git: its test images stay test images, its others never become it; `capnet split --save-reference`"
            " writes it; dvc repro watches the folder reference"
        ),
    )
    require_positives: RequirePositives = RequirePositives()
    buckets: tuple[Int, Int] = Field((100, 20), description="head from the first count on, tail below the second")
    seed: Int = Field(0, ge=0, description="seed of the draw")

    @field_validator("buckets", mode="before")
    @classmethod
    def _two(cls, value: object) -> object:
        if not isinstance(value, str) and not (isinstance(value, list | tuple) and len(value) == 2):
            raise ValueError("write two counts, such as [100, 20]: head from the first on, tail below the second")
        return value

    @field_validator("buckets")
    @classmethod
    def _falling(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not value[0] > value[1] > 0:
            raise ValueError("the first cut must be above the second, and both above 0")
        return value


class Drift(Section):
    severity: Literal["off", "warning", "critical"] = Field(
        "warning", description="a figure that moved beyond its limit and beyond chance"
    )
    imbalance: float = Field(
        0.5,
        ge=0,
        description="allowed change of the imbalance ratio of train: 0.5 is half as much again, or two thirds",
    )
    cardinality: float = Field(0.1, ge=0, description="allowed change of the labels per image, as a share")
    cooccurrence: Share = Field(0.1, description="allowed share of label pairs that changed places")


class Validate(Section):
    images: Literal["header", "full", "off"] = Field(
        "header", description="what is read of each image file: its header, every byte and pixel, or nothing"
    )
    processes: Int = Field(
        0, ge=0, le=256, description="processes that read images; 0: one for each CPU that may be used, at most 16"
    )
    min_side: Int = Field(16, ge=1, description="smallest allowed width or height in pixels")
    max_side: Int = Field(20000, ge=1, description="largest allowed width or height in pixels")
    near_duplicates: Literal["off", "warning", "critical"] = Field(
        "warning", description="copies and burst frames, by perceptual hash, in two splits"
    )
    min_positives: Int = Field(5, ge=0, description="known positives that a class should have in every split")
    few_positives: Literal["off", "warning", "critical"] = Field(
        "warning", description="a class with fewer than min_positives"
    )
    reference: str = Field(
        "reference/validation.json",
        description=(
            "file in git that the data is compared with; `capnet validate --save-reference` writes it; dvc repro"
            " watches the folder reference"
        ),
    )
    drift: Drift = Drift()
