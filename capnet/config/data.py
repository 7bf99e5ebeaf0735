"""Sections data, ingest, split and validate: which images, which labels, which rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from capnet.section import Int, Section, Share


class Data(Section):
    format: Literal["csv", "voc", "coco", "nus_wide", "camera_traps"] = Field(
        "csv",
        description="how the labels are written: csv is a table (labels.csv) beside images/, the others as published",
    )
    root: str = Field(
        "data",
        min_length=1,
        description=(
            "folder with the pictures, s3://BUCKET/PREFIX, or git+URL of a repository whose data.dvc names them"
        ),
    )
    revision: str = Field(
        "", description="for a git repository: branch, tag or commit of the data version; empty: its default branch"
    )
    path: str = Field("data", min_length=1, description="for a git repository: the folder with the pictures in it")
    links: Literal["inside", "anywhere"] = Field(
        "inside", description="where symbolic links below data.root may lead: inside it only, or anywhere"
    )
    anonymous: bool = Field(False, description="read a public bucket without credentials")
    cache_gigabytes: float = Field(
        50.0,
        gt=0,
        description="most that copies of remote pictures may take in the state folder; the longest unused go first",
    )
    connections: Int = Field(16, ge=1, le=256, description="remote files fetched at a time")


class Voc(Section):
    train: str = Field(
        "VOC2012/trainval", description="year folder and image set of the training pictures; empty: none"
    )
    test: str = Field("VOC2007/test", description="year folder and image set of the test pictures; empty: none")
    difficult: Literal["counted", "unknown", "ignored"] = Field(
        "counted", description="a class of which a picture only has objects marked difficult"
    )


class Coco(Section):
    train: str = Field(
        "annotations/instances_train2017.json", description="annotations of the training pictures; empty: none"
    )
    test: str = Field("annotations/instances_val2017.json", description="annotations of the test pictures; empty: none")
    train_images: str = Field("train2017", description="folder of the training pictures")
    test_images: str = Field("val2017", description="folder of the test pictures")
    box_filter: bool = Field(
        True, description="count no box of area 0, narrower or lower than 1 pixel, or flagged ignore"
    )
    crowd: bool = Field(True, description="count regions marked as a crowd")


class NusWide(Section):
    lists: Literal["official", "clean"] = Field(
        "official", description="the official image lists and Groundtruth, or tables of pictures and their concepts"
    )
    images: str = Field("Flickr", description="folder of the pictures")
    clean_train: str = Field(
        "nus_train.csv", description="clean: table (image, labels) of the training pictures; empty: none"
    )
    clean_test: str = Field(
        "nus_test.csv", description="clean: table (image, labels) of the test pictures; empty: none"
    )
    keep_unlabelled: bool = Field(False, description="keep pictures without any of the 81 concepts")


class CameraTraps(Section):
    file: str = Field("annotations.json", description="the COCO Camera Traps file")
    images: str = Field("", description="folder that file names are relative to, inside data.root")
    blank: tuple[str, ...] = Field(("empty",), description="categories that say that nothing is there")
    unsure: tuple[str, ...] = Field(
        (), description="categories that say that nobody knows: all classes are unknown on such a picture"
    )
    sequence_maximum: bool = Field(
        False, description="what is seen on one frame of a sequence counts for all its frames"
    )


class Ingest(Section):
    labels: str = Field("labels.csv", description="label table inside data.root: .csv, .csv.gz or .parquet")
    classes: str = Field("classes.csv", description="optional table inside data.root: name, prompt_name, critical")
    separator: str = Field("|", min_length=1, max_length=1, description="character between labels")
    empty_cell: Literal["unknown", "negative"] = Field(
        "unknown", description="tables with one column a class: what an empty cell says"
    )
    train_list: str = Field(
        "", description="file inside data.root of training image ids, one a line, for split.method published"
    )
    test_list: str = Field(
        "", description="file inside data.root of test image ids, one a line, for split.method published"
    )
    pictures: Literal["decode", "header", "listed"] = Field(
        "decode",
        description=(
            "decode to the last byte, read size and hash only, or open none and take width, height, sha256 from the"
            " table"
        ),
    )
    bad_pictures: Share = Field(
        0.01,
        description=(
            "share of pictures that may be missing or broken: they are left out and named; beyond it ingest stops"
        ),
    )
    voc: Voc = Voc()
    coco: Coco = Coco()
    nus_wide: NusWide = NusWide()
    camera_traps: CameraTraps = CameraTraps()


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
    share: Share = Field(0.2, description="validation rows wanted, as a share of the training rows")
    cap: Share = Field(
        0.2, description="most rows that may come from the left-over pool, as a share of the training rows"
    )


class RequirePositives(Section):
    train: Int = Field(1, ge=0, description="fewest positives of a class among the training rows")
    val: Int = Field(0, ge=0, description="fewest positives of a class among the validation rows")
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
        0.2, description="share of the rows without a given side that becomes the test set when none is given"
    )
    require_positives: RequirePositives = RequirePositives()
    buckets: tuple[Int, Int] = Field((100, 20), description="head from the first count on, tail below the second")
    seed: Int = Field(0, ge=0, description="seed of the draw")

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
    cardinality: float = Field(0.1, ge=0, description="allowed change of the labels per picture, as a share")
    cooccurrence: Share = Field(0.1, description="allowed share of label pairs that changed places")


class Validate(Section):
    pictures: Literal["header", "full", "off"] = Field(
        "header", description="what is read of each picture file: its header, every byte and pixel, or nothing"
    )
    processes: Int = Field(
        0, ge=0, description="processes that read pictures; 0: one for each CPU that may be used, at most 16"
    )
    min_side: Int = Field(16, ge=1, description="smallest allowed width or height in pixels")
    max_side: Int = Field(20000, ge=1, description="largest allowed width or height in pixels")
    near_duplicates: Literal["off", "warning", "critical"] = Field(
        "warning", description="copies and burst frames, by perceptual hash, on two sides of the split"
    )
    min_positives: Int = Field(5, ge=0, description="known positives that a class should have on every side")
    few_positives: Literal["off", "warning", "critical"] = Field("warning", description="a class with fewer than that")
    reference: str = Field(
        "reference/validation.json",
        description=(
            "file in git that the data is compared with; `capnet validate --save-reference` writes it; dvc repro"
            " watches the folder reference"
        ),
    )
    drift: Drift = Drift()
    published: Literal["none", "voc-lt", "coco-lt"] = Field(
        "none", description="benchmark whose published counts the split must have"
    )
