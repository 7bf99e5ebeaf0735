"""Settings: one frozen model per section of params.yaml; every unknown key and wrong value is reported at once."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from capnet.errors import ConfigError, Problem
from capnet.yaml_text import read_yaml


def _safe_integer(value: Any) -> Any:
    """KFP turns 10 into 10.0: accept an integral float, refuse true and false and what a double cannot hold exactly."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    if isinstance(value, int | float) and abs(value) > 2**53:
        raise ValueError("integers above 2^53 do not survive a pipeline parameter")
    return value


Int = Annotated[int, BeforeValidator(_safe_integer)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    format: Literal["csv", "voc", "coco", "nus_wide", "camera_traps"] = Field(
        "csv", description="how the labels are written: csv is a table (labels.csv) beside images/, the others as published"
    )
    root: str = Field("data", min_length=1, description="folder with the pictures, s3://BUCKET/PREFIX, or git+URL of a repository whose data.dvc names them")
    revision: str = Field("", description="for a git repository: branch, tag or commit of the data version; empty: its default branch")
    path: str = Field("data", min_length=1, description="for a git repository: the folder with the pictures in it")
    links: Literal["inside", "anywhere"] = Field("inside", description="where symbolic links below data.root may lead: inside it only, or anywhere")
    anonymous: bool = Field(False, description="read a public bucket without credentials")
    cache_gigabytes: float = Field(50.0, gt=0, description="most that copies of remote pictures may take in the state folder; the longest unused go first")
    connections: Int = Field(16, ge=1, le=256, description="remote files fetched at a time")


class Backbone(Section):
    name: str = Field("ViT-B-16", description="an open_clip model (ViT-B-16, RN50, ...), or lit-efflite0-minilm, lit-efflite2-minilm")
    pretrained: str = Field(
        "openai", description="an open_clip tag, a .pt or .safetensors file, local-dir:FOLDER, 'wheels' for the lit-* backbones, or 'random' (tests only)"
    )
    centre: bool = Field(True, description="centre text features; only the lit-* backbones ship a centring projector")


class Tte(Section):
    views: Int = Field(5, description="test-time views: 1 (centre crop), 5 (corners and centre) or 10 (and mirrored)")
    size: Int = Field(
        0, ge=0, le=4096, description="side of the crop in pixels, also in training; 0: the backbone's own; a ViT's position embeddings are interpolated"
    )
    expand: Int = Field(24, ge=0, description="pixels that the shorter side is resized beyond the crop")
    average: Literal["logits", "probabilities"] = Field("logits", description="what is averaged over views")
    resize: Literal["short", "pad", "squash"] = Field(
        "short", description="before cropping, also in training: shorter side to size, padded to a square, or distorted into one (VOC-LT's and COCO-LT's peers)"
    )

    @field_validator("size")
    @classmethod
    def _large_enough(cls, value: int) -> int:
        if 0 < value < 32:
            raise ValueError("allowed are 0, the backbone's own, and 32 to 4096")
        return value

    @field_validator("views")
    @classmethod
    def _known_views(cls, value: int) -> int:
        if value not in (1, 5, 10):
            raise ValueError("allowed are 1, 5 and 10")
        return value


class Runtime(Section):
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where torch sees one")
    threads: Int = Field(2, ge=1, description="CPU threads; equal threads give equal bits")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision of the towers; auto: bf16 autocast where GPU or CPU have it in hardware, else fp32"
    )
    seed: Int = Field(0, ge=0, description="seed of every random draw in training")


class Voc(Section):
    train: str = Field("VOC2012/trainval", description="year folder and image set of the training pictures; empty: none")
    test: str = Field("VOC2007/test", description="year folder and image set of the test pictures; empty: none")
    difficult: Literal["counted", "unknown", "ignored"] = Field("counted", description="a class of which a picture only has objects marked difficult")


class Coco(Section):
    train: str = Field("annotations/instances_train2017.json", description="annotations of the training pictures; empty: none")
    test: str = Field("annotations/instances_val2017.json", description="annotations of the test pictures; empty: none")
    train_images: str = Field("train2017", description="folder of the training pictures")
    test_images: str = Field("val2017", description="folder of the test pictures")
    box_filter: bool = Field(True, description="count no box of area 0, narrower or lower than 1 pixel, or flagged ignore")
    crowd: bool = Field(True, description="count regions marked as a crowd")


class NusWide(Section):
    lists: Literal["official", "clean"] = Field("official", description="the official image lists and Groundtruth, or tables of pictures and their concepts")
    images: str = Field("Flickr", description="folder of the pictures")
    clean_train: str = Field("nus_train.csv", description="clean: table (image, labels) of the training pictures; empty: none")
    clean_test: str = Field("nus_test.csv", description="clean: table (image, labels) of the test pictures; empty: none")
    keep_unlabelled: bool = Field(False, description="keep pictures without any of the 81 concepts")


class CameraTraps(Section):
    file: str = Field("annotations.json", description="the COCO Camera Traps file")
    images: str = Field("", description="folder that file names are relative to, inside data.root")
    blank: tuple[str, ...] = Field(("empty",), description="categories that say that nothing is there")
    unsure: tuple[str, ...] = Field((), description="categories that say that nobody knows: all classes are unknown on such a picture")
    sequence_maximum: bool = Field(False, description="what is seen on one frame of a sequence counts for all its frames")


class Ingest(Section):
    labels: str = Field("labels.csv", description="label table inside data.root: .csv, .csv.gz or .parquet")
    classes: str = Field("classes.csv", description="optional table inside data.root: name, prompt_name, critical")
    separator: str = Field("|", min_length=1, max_length=1, description="character between labels")
    empty_cell: Literal["unknown", "negative"] = Field("unknown", description="tables with one column a class: what an empty cell says")
    train_list: str = Field("", description="file inside data.root of training image ids, one a line, for split.method published")
    test_list: str = Field("", description="file inside data.root of test image ids, one a line, for split.method published")
    pictures: Literal["decode", "header", "listed"] = Field(
        "decode", description="decode to the last byte, read size and hash only, or open none and take width, height, sha256 from the table"
    )
    bad_pictures: Share = Field(0.01, description="share of pictures that may be missing or broken: they are left out and named; beyond it ingest stops")
    voc: Voc = Voc()
    coco: Coco = Coco()
    nus_wide: NusWide = NusWide()
    camera_traps: CameraTraps = CameraTraps()


class Pareto(Section):
    max: Int = Field(800, ge=1, description="reference count of the first class")
    min: Int = Field(1, ge=0, description="reference count towards which the last classes fall")
    shape: float = Field(6.0, gt=0, description="Pareto shape b (METHOD: 6)")

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
    cap: Share = Field(0.2, description="most rows that may come from the left-over pool, as a share of the training rows")


class RequirePositives(Section):
    train: Int = Field(1, ge=0, description="fewest positives of a class among the training rows")
    val: Int = Field(0, ge=0, description="fewest positives of a class among the validation rows")
    test: Int = Field(0, ge=0, description="fewest positives of a class among the test rows; a given test set only warns")


class Split(Section):
    method: Literal["natural", "pareto", "exponential", "published"] = Field(
        "natural", description="natural keeps every row, pareto and exponential draw a long-tailed list, published takes ingest.train_list"
    )
    pareto: Pareto = Pareto()
    exponential: Exponential = Exponential()
    benchmark: Literal["none", "voc-lt", "coco-lt"] = Field("none", description="refuse a split whose training counts are not the published ones")
    validation: Validation = Validation()
    test_share: Share = Field(0.2, description="share of the rows without a given side that becomes the test set when none is given")
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
    severity: Literal["off", "warning", "critical"] = Field("warning", description="a figure that moved beyond its limit and beyond chance")
    imbalance: float = Field(0.5, ge=0, description="allowed change of the imbalance ratio of train: 0.5 is half as much again, or two thirds")
    cardinality: float = Field(0.1, ge=0, description="allowed change of the labels per picture, as a share")
    cooccurrence: Share = Field(0.1, description="allowed share of label pairs that changed places")


class Validate(Section):
    pictures: Literal["header", "full", "off"] = Field("header", description="what is read of each picture file: its header, every byte and pixel, or nothing")
    processes: Int = Field(0, ge=0, description="processes that read pictures; 0: one for each CPU that may be used, at most 16")
    min_side: Int = Field(16, ge=1, description="smallest allowed width or height in pixels")
    max_side: Int = Field(20000, ge=1, description="largest allowed width or height in pixels")
    near_duplicates: Literal["off", "warning", "critical"] = Field(
        "warning", description="copies and burst frames, by perceptual hash, on two sides of the split"
    )
    min_positives: Int = Field(5, ge=0, description="known positives that a class should have on every side")
    few_positives: Literal["off", "warning", "critical"] = Field("warning", description="a class with fewer than that")
    reference: str = Field(
        "reference/validation.json",
        description="file in git that the data is compared with; `capnet validate --save-reference` writes it; dvc repro watches the folder reference",
    )
    drift: Drift = Drift()
    published: Literal["none", "voc-lt", "coco-lt"] = Field("none", description="benchmark whose published counts the split must have")


class Graph(Section):
    source: Literal["text", "cooccurrence", "blend"] = Field(
        "text", description="label similarity from the text tower, train co-occurrence, or both weighted by counts"
    )
    template: str = Field("a photo of a {}.", description="hand-written prompt")
    top_k: float = Field(0.775, gt=0, description="neighbours kept per row with the class itself: a share of the classes up to 1.0, a count above")
    s: float = Field(0.2, gt=0, lt=1, description="weight of the neighbours; the diagonal is 1 - s")
    tau: float = Field(0.2, gt=0, description="temperature tau' of the softmax normalisation")
    normalisation: Literal["linear", "softmax"] = Field("linear", description="linear: A (rows scaled); softmax: S (softmax of A / tau')")
    blend_count: float = Field(20.0, gt=0, description="blend: train count at which co-occurrence weighs as much as text")

    @field_validator("template")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("needs exactly one {} where the class name goes")
        return value


class Prompt(Section):
    enabled: bool = Field(True, description="learn class-specific soft prompts")
    length: Int = Field(4, ge=1, le=32, description="context vectors per class when init is normal")
    init: Literal["phrase", "normal"] = Field("phrase", description="start from the words of phrase, or from N(0, 0.02)")
    phrase: str = Field("a photo of a", min_length=1, description="words copied to every class at the start")
    shared: bool = Field(False, description="one context for all classes instead of one per class")


class Gcn(Section):
    enabled: bool = Field(True, description="propagate text features over the label graph")
    hidden: Int = Field(1024, ge=1, description="hidden width (SCPNet with RN50: 2048, a 34 MB model file)")
    zero_init: bool = Field(True, description="last layer starts at zero, so training starts at zero-shot")


class Adapter(Section):
    enabled: bool = Field(True, description="train adapters in the image tower")
    bottleneck: Int = Field(64, ge=1, description="adapter width")
    scale: float = Field(1.0, gt=0, description="start of the adapter's learnable scale")
    place: Literal["bridge", "pooled", "joint"] = Field(
        "bridge", description="towers without blocks: adapter from before to behind the projection, all before it, or all behind it"
    )
    towers: Literal["image", "image+text"] = Field("image", description="which towers get AdaptFormer")


class Head(Section):
    start: Literal["data", "settings"] = Field(
        "data", description="where logit scale and bias start: from the training rows' zero-shot cosines and labels, or from logit_scale and bias_init"
    )
    logit_scale: float = Field(10.0, gt=0, description="start of the trainable logit scale, for start: settings")
    bias: bool = Field(True, description="one trainable bias shared by all classes; without it scale and bias start from the settings")
    bias_init: float = Field(-3.0, description="start of the bias, for start: settings (-3 for DB-focal and ASL, -4 to -5 for BCE)")


class ClassHead(Section):
    enabled: bool = Field(False, description="also train a visual weight vector for each class, anchored in its text; not in the paper")
    weight_decay: float = Field(2.0, ge=0, description="on these weights: what pulls a class back to its text")


class Loss(Section):
    name: Literal["db_focal", "db", "db_focal_lmpt", "focal", "bce", "asl"] = Field("db_focal", description="training loss")
    alpha: float = Field(0.1, description="map of the re-balanced weight: offset")
    beta: float = Field(10.0, description="map of the re-balanced weight: slope")
    mu: float = Field(0.2, description="map of the re-balanced weight: centre (VOC-LT 0.3, COCO-LT 0.2)")
    negative_scale: float = Field(2.0, gt=0, description="lambda of negative-tolerant regularisation (VOC-LT 5, COCO-LT 2)")
    kappa: float = Field(0.05, ge=0, description="scale of the class-specific shift nu")
    gamma: float = Field(2.0, ge=0, description="focal exponent")
    gamma_positive: float = Field(0.0, ge=0, description="asl: exponent of positives")
    gamma_negative: float = Field(4.0, ge=0, description="asl: exponent of negatives")
    clip: Share = Field(0.05, description="asl: probability taken off negatives")
    blank: Literal["db", "neutral"] = Field("neutral", description="weight of pictures without labels: the largest (db) or the middle one (neutral)")


class Optimiser(Section):
    lr_prompt: float = Field(1e-3, ge=0, description="peak learning rate of the prompts")
    lr_gcn: float = Field(3e-4, ge=0, description="peak learning rate of the GCN")
    lr_adapter: float = Field(1e-3, ge=0, description="peak learning rate of the adapters")
    lr_head: float = Field(1e-2, ge=0, description="peak learning rate of logit scale and bias")
    lr_class_head: float = Field(1e-3, ge=0, description="peak learning rate of the class head's weights")
    weight_decay: float = Field(0.01, ge=0, description="on matrices only")
    warmup: Share = Field(0.1, description="share of the steps with rising learning rate, then cosine")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")


class Train(Section):
    epochs: Int = Field(30, ge=1, description="passes over the training rows")
    batch_size: Int = Field(64, ge=1, description="pictures per step")
    views: Int = Field(4, ge=1, description="random views cached per picture beside the test-time views, when the image tower is frozen up to the adapter")
    sampler: Literal["shuffle", "class_aware"] = Field("shuffle", description="class_aware visits the classes in turn, so rare ones are seen as often")
    select: Literal["val_map", "last"] = Field("val_map", description="epoch that is kept; without validation rows always the last")
    validate_every: Int = Field(1, ge=1, description="epochs between two looks at the validation rows")
    folds: Int = Field(3, ge=2, le=10, description="folds for out-of-fold scores when there is no validation side")
    zero_shot_weight: Share = Field(0.0, description="share of zero-shot scores in the final score, where blend is none")
    seeds: tuple[Annotated[Int, Field(ge=0)], ...] = Field(
        (), description="a pipeline trains and evaluates once per seed and registers the first; empty, and `capnet train`: runtime.seed alone"
    )
    prompt: Prompt = Prompt()
    gcn: Gcn = Gcn()
    adapter: Adapter = Adapter()
    head: Head = Head()
    class_head: ClassHead = ClassHead()
    blend: Literal["none", "held_out"] = Field(
        "none",
        description="what is served: the trained parts, or the blend of them, a linear probe and zero-shot that ranks held-out rows best",
    )
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the same seed stands there twice, and would give the same model twice")
        return value


class Threshold(Section):
    objective: str = Field("f1", description="f1, recall>=R or precision>=P, per class on validation")
    min_positives: Int = Field(5, ge=1, description="classes with fewer validation positives borrow the pooled threshold")

    @field_validator("objective")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "f1":
            return value
        name, mark, number = value.partition(">=")
        try:
            fine = name in ("recall", "precision") and mark == ">=" and 0 < float(number) <= 1
        except ValueError:
            fine = False
        if not fine:
            raise ValueError("allowed are f1, recall>=R and precision>=P with R, P in (0, 1]")
        return value


class Probe(Section):
    enabled: bool = Field(True, description="fit a linear probe (logistic regression on frozen features) as a baseline")
    c: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="inverse regularisation strengths tried on validation, where train.blend is none; else stage train has fitted the probe",
    )


class Report(Section):
    thumbnails: bool = Field(False, description="show the worst pictures; leave off where pictures must not travel")
    worst: Int = Field(6, ge=1, le=24, description="pictures per bucket")


class Evaluate(Section):
    bootstrap: Int = Field(1000, ge=100, description="bootstrap draws")
    calibration_prior: float = Field(
        1.0, gt=0, description="a class with k expected validation positives moves about k / (k + prior) of the way from the shared shift to its own"
    )
    threshold: Threshold = Threshold()
    probe: Probe = Probe()
    report: Report = Report()


class Register(Section):
    name: str = Field("capnet", pattern=r"^\w[\w .-]*$", description="registered model name: letters, digits, space, dot, hyphen, underscore")
    experiment: str = Field("capnet", min_length=1, max_length=250, description="MLflow experiment")
    tracking_uri: str = Field("sqlite:///mlflow.db", min_length=1, description="used unless MLFLOW_TRACKING_URI is set")
    alias: str = Field("challenger", pattern=r"^[\w-]+$", max_length=255, description="alias given to the new version")
    policy: str = Field("mlflow/promotion.yaml", min_length=1, description="what a new version must hold against the champion")
    data_licence: str = Field("", description="licence of the pictures, for the data card; empty: what ATTRIBUTION or LICENSE in data/ says")
    pack_backbone: bool = Field(
        False, description="put the image tower's weights into the registered model: it loads without weight files and without a network"
    )

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value.lower() == "latest" or (value[:1] in "vV" and value[1:].isdigit()):
            raise ValueError("MLflow keeps 'latest' and v1, v2, ... for itself")
        if value.lower() == "champion":
            raise ValueError("'champion' is given by `capnet promote`, behind its gate")
        return value


class Params(Section):
    """All of params.yaml."""

    data: Data = Data()
    backbone: Backbone = Backbone()
    tte: Tte = Tte()
    runtime: Runtime = Runtime()
    ingest: Ingest = Ingest()
    split: Split = Split()
    validate_: Validate = Field(Validate(), alias="validate")
    graph: Graph = Graph()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    register_: Register = Field(Register(), alias="register")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def section(self, name: str) -> Section:
        """The section called ``name`` in params.yaml."""
        section = getattr(self, name if name in type(self).model_fields else name + "_")
        assert isinstance(section, Section)
        return section

    def subset(self, sections: Iterable[str]) -> dict[str, Any]:
        """Plain dict ``{section: {...}}`` of the named sections, as it travels to a pipeline task."""
        return {name: self.section(name).model_dump(mode="json") for name in sections}


def _type_hint(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return "remove it, or look up the name: `capnet preset own` prints every setting"
    if error["type"] == "tuple_type":
        return f"write a list: [{error.get('input')}]"
    return f"allowed: {context['expected']}" if "expected" in context else "see `capnet preset own` for every setting and its meaning"


def parse(raw: Mapping[str, Any], where: str = "params.yaml") -> Params:
    """Validate ``raw`` ({section: {...}}); raises ConfigError naming every bad key at once."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            path = ".".join(str(part) for part in item["loc"])
            unknown = item["type"] == "extra_forbidden"
            value = item.get("input")
            shown = "" if isinstance(value, Mapping | BaseModel) else f" = {value!r}"
            message = item["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
            what = f"unknown setting {path}{shown}" if unknown else f"{path}{shown}: {message}" if path else message
            problems.append(Problem(what, where, _type_hint(item)))
        raise ConfigError(problems=problems) from None


def load(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read params.yaml and apply ``section.key=value`` overrides (values are YAML)."""
    if not path.is_file():
        raise ConfigError(f"no settings file {path}", str(path), "make one with `capnet preset own > params.yaml`")
    try:
        raw = read_yaml(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text: {error.reason} at byte {error.start}", str(path), "save the file as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("not valid YAML", f"{path}: {' '.join(str(error).split())}", "correct the file at that line") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"expected sections, found {type(raw).__name__}", str(path), "compare with `capnet preset own`")
    given = tuple(overrides)
    return parse(override(raw, given), f"{path}, --set" if given else str(path))


def override(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``raw`` with each ``a.b=value`` applied."""
    result: dict[str, Any] = copy.deepcopy(dict(raw))
    for item in overrides:
        path, equals, value = item.partition("=")
        *parents, last = path.split(".")
        if not equals or not parents or not last:
            raise ConfigError(f"cannot read --set {item!r}", "command line", "write --set section.key=value")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{parent} in --set {item!r} is a value, not a section", "command line", "write --set section.key=value")
        try:
            node[last] = read_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            what = f"the value in --set {item!r} is not valid YAML"
            raise ConfigError(what, f"command line: {' '.join(str(error).split())}", "put quotes around it, such as --set 'section.key=\"value\"'") from None
    return result


def settings_hash(*sections: Section | Mapping[str, Any]) -> str:
    """sha256 of validated settings; equal settings give equal hashes whatever their order or spelling."""
    plain = [section.model_dump(mode="json") if isinstance(section, Section) else dict(section) for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
