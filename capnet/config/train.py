"""Section train: which parts are trained, with which loss, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from capnet.model.losses import LOSSES, Loss
from capnet.model.losses.distribution_balanced import DbFocal
from capnet.section import Int, Section, Share


class Prompt(Section):
    enabled: bool = Field(True, description="learn class-specific soft prompts")
    length: Int = Field(4, ge=1, le=32, description="context vectors per class when init is normal")
    init: Literal["phrase", "normal"] = Field(
        "phrase", description="start from the words of phrase, or from N(0, 0.02)"
    )
    phrase: str = Field("a photo of a", min_length=1, description="words copied to every class at the start")
    shared: bool = Field(False, description="one context for all classes instead of one per class")
    classes_per_step: Int = Field(
        0,
        ge=0,
        description=(
            "classes whose prompts are trained in a step, first those that the batch shows; the others keep the text"
            " features that they had; 0: all"
        ),
    )
    chunk: Int = Field(
        256,
        ge=1,
        description="classes whose prompts are in memory at a time; with more classes, the rest are encoded twice",
    )


class Gcn(Section):
    enabled: bool = Field(True, description="propagate text features over the label graph")
    hidden: Int = Field(1024, ge=1, le=65_536, description="hidden width (SCPNet with RN50: 2048, a 34 MB model file)")
    zero_init: bool = Field(True, description="last layer starts at zero, so training starts at the prompts")


class Adapter(Section):
    enabled: bool = Field(True, description="train adapters in the image tower")
    bottleneck: Int = Field(64, ge=1, le=65_536, description="adapter width")
    in_blocks: bool = Field(
        True,
        description=(
            "a ViT gets adapters in its blocks; false: one adapter near the projection (location), so that the tower"
            " stays frozen, its features are stored, and a CPU trains in minutes instead of hours"
        ),
    )
    blocks: Int = Field(
        0,
        ge=0,
        description=(
            "how many of the image tower's last blocks get adapters, 0: all; with fewer the tokens before them are"
            " computed once, for the test-time views and train.views random ones, and training runs these blocks only"
        ),
    )
    scale: float = Field(1.0, gt=0, description="start of the adapter's learnable scale")
    location: Literal["bridge", "pooled", "joint"] = Field(
        "bridge",
        description=(
            "without adapters in blocks: from before to behind the projection, all before it, or all behind it"
        ),
    )
    towers: Literal["image", "image+text"] = Field("image", description="which towers get AdaptFormer")

    @model_validator(mode="after")
    def _blocks_without_adapters(self) -> Adapter:
        if self.blocks and not self.in_blocks:
            raise ValueError(f"blocks = {self.blocks} with in_blocks = false, which puts adapters into no block")
        return self


class Head(Section):
    start: Literal["data", "settings"] = Field(
        "data",
        description=(
            "where logit scale and bias start: from the training rows' zero-shot cosines and labels, or from"
            " logit_scale and bias_init"
        ),
    )
    logit_scale: float = Field(10.0, gt=0, description="start of the trainable logit scale, for start: settings")
    bias: bool = Field(
        True, description="one trainable bias shared by all classes; without it scale and bias start from the settings"
    )
    bias_init: float = Field(
        -3.0, description="start of the bias, for start: settings (-3 for DB-focal and ASL, -4 to -5 for BCE)"
    )


class ClassHead(Section):
    enabled: bool = Field(
        False, description="also train a visual weight vector for each class, anchored in its text; not in the paper"
    )
    weight_decay: float = Field(
        2.0, ge=0, description="weight decay of these weights, which pulls a class back to its text"
    )


def _named_loss(value: Any) -> Any:
    """Settings without a name are those of the default loss."""
    if isinstance(value, Mapping):
        return {"name": DEFAULT_LOSS.name, **value}
    if not isinstance(value, Loss):
        raise ValueError("a loss is a section: a name and settings of its own")
    return value


DEFAULT_LOSS = DbFocal()
if TYPE_CHECKING:
    AnyLoss = Loss
else:
    AnyLoss = Annotated[reduce(or_, LOSSES.values()), Field(discriminator="name"), BeforeValidator(_named_loss)]


class Optimiser(Section):
    lr_prompt: float = Field(1e-3, ge=0, description="peak learning rate of the prompts")
    lr_gcn: float = Field(3e-4, ge=0, description="peak learning rate of the GCN")
    lr_adapter: float = Field(1e-3, ge=0, description="peak learning rate of the adapters")
    lr_head: float = Field(1e-2, ge=0, description="peak learning rate of logit scale and bias")
    lr_class_head: float = Field(1e-3, ge=0, description="peak learning rate of the class head's weights")
    weight_decay: float = Field(0.01, ge=0, description="weight decay, on matrices only")
    warmup: Share = Field(0.1, description="share of the steps with rising learning rate, then cosine")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")


class Train(Section):
    epochs: Int = Field(30, ge=1, le=1_000_000, description="passes over the training rows")
    batch_size: Int = Field(64, ge=1, description="images per step")
    views: Int = Field(
        4,
        ge=1,
        le=100,
        description=(
            "random views stored per image besides the test-time views, where the image tower is frozen, or all but its"
            " last blocks (adapter.blocks)"
        ),
    )
    sampler: Literal["shuffle", "class_aware"] = Field(
        "shuffle", description="class_aware visits the classes in turn, so rare ones are seen as often"
    )
    select: Literal["val_map", "last"] = Field(
        "val_map", description="epoch that is kept; without validation rows always the last"
    )
    validate_every: Int = Field(1, ge=1, description="epochs from one validation to the next")
    refit: bool = Field(
        False,
        description=(
            "after the choices on held-out rows train once more, with what was chosen, on training and validation rows"
            " together; thresholds keep the scores of models that had not seen the rows"
        ),
    )
    out_of_fold: bool = Field(
        True,
        description=(
            "also train one model a fold, for the scores that thresholds and blend are chosen on: without validation"
            " rows, and with refit where towers are frozen and prompts are off; false: no thresholds in the first case,"
            " validation rows choose in the second"
        ),
    )
    folds: Int = Field(3, ge=2, le=10, description="folds for out-of-fold scores")
    zero_shot_weight: Share = Field(
        0.0, description="share of zero-shot scores in the final score, where blend is none"
    )
    seeds: tuple[Annotated[Int, Field(ge=0)], ...] = Field(
        (),
        description=(
            "a pipeline trains and evaluates once per seed and registers the first; empty, and `capnet train`:"
            " runtime.seed alone"
        ),
    )
    prompt: Prompt = Prompt()
    gcn: Gcn = Gcn()
    adapter: Adapter = Adapter()
    head: Head = Head()
    class_head: ClassHead = ClassHead()
    blend: Literal["none", "held_out"] = Field(
        "none",
        description=(
            "what is served: the trained parts, or a blend of them, a linear probe and zero-shot that is no worse than"
            " the last two on held-out rows"
        ),
    )
    loss: AnyLoss = Field(
        DEFAULT_LOSS, description="training loss; --set train.loss.name=NAME takes the defaults of that loss"
    )
    optimiser: Optimiser = Optimiser()

    @model_validator(mode="after")
    def _text_adapters_are_trained(self) -> Train:
        if self.adapter.towers == "image+text" and not self.prompt.enabled:
            raise ValueError(
                "adapter.towers = image+text with prompt.enabled = false: the text tower is not run, so nothing of it"
                " is trained; set adapter.towers: image, or prompt.enabled: true"
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is named twice and would give the same model twice")
        return value
