"""One training step of a CLIP backbone with random weights, against the plain path written as settings.

    python -m benchmarks step --threads 2 --out step.json
    python -m benchmarks step --threads 1 --clock processor --rounds 3

Steps of all kinds and products of two matrices take turns in one process. The share of a step is its floating-point
operations, which torch counts, by the time that they would take at the rate of the matrix product of the same round.

The plain path is a step as LMPT's program takes it: 77 tokens a text, fp32, tokens in front of the batch, open_clip's
own attention, the image tower at every step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.matrix_rate import CLOCKS, MATRIX_FLOPS, about, in_turns, matrix_product, ratios, spread
from benchmarks.numbers import from_one
from capnet.config import parse
from capnet.contracts import LabelGraph, make_classes
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.model.towers import Towers
from capnet.model.towers.attention import SelfAttention
from capnet.runtime import Machine, prepare
from capnet.training.class_steps import ClassSteps
from capnet.training.optimiser import make_optimiser
from capnet.training.trainer import Labels, Trainer

PLAIN = "plain path, prompts only"
PARTS: dict[str, dict[str, Any]] = {
    "prompts only": {"gcn": {"enabled": False}, "adapter": {"enabled": False}},
    "prompts only, image features stored": {"gcn": {"enabled": False}, "adapter": {"enabled": False}},
    "full CapNet": {},
}


@dataclass
class BatchImages:
    """Images of a batch, as pixels [image, 3, size, size] or as features [image, pooled] that were stored."""

    model: CapNet
    machine: Machine
    pixels: Tensor | None
    stored: Tensor

    def announce(self, batches: Sequence[np.ndarray], epoch: int) -> None:
        """Nothing is read ahead."""

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        if self.pixels is None:
            return self.stored[torch.from_numpy(rows).to(self.stored.device)]
        with self.machine.autocast():
            return self.model.pooled(self.pixels[torch.from_numpy(rows).to(self.pixels.device)])


def as_published(towers: Towers) -> Towers:
    """``towers`` with attention by ``nn.MultiheadAttention``, tokens in front of the batch and texts at full length."""
    text: Any = towers.text
    text.used_length = lambda tokens: tokens.shape[1]
    for transformer in (towers.image.visual.transformer, text.tower.transformer):
        transformer.batch_first = False
        for block in transformer.resblocks:
            own: SelfAttention = block.attn
            block.attn = nn.MultiheadAttention(own.out_proj.in_features, own.heads)
            block.attn.load_state_dict(own.state_dict())
        transformer.requires_grad_(False).eval()
    return towers


def make_step(backbone: str, parts: str, machine: Machine, classes: int, batch: int) -> Callable[[], object]:
    """A training step of a new model, to be called again and again."""
    settings = PARTS[parts.removeprefix("plain path, ")] | {"prompt": {"init": "normal", "length": 16}}
    params = parse({"backbone": {"name": backbone, "pretrained": "random"}, "train": settings})
    towers = load_towers(params.backbone)
    if parts == PLAIN:
        towers = as_published(towers)
    towers.to(machine.device)
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(classes, towers.embed_dim, generator=generator)
    names = make_classes([f"thing {number:03}" for number in range(classes)])
    graph = LabelGraph(torch.full((classes, classes), 1 / classes), text, {})
    trainer = Trainer(params, names, graph, towers, machine, Path())
    model = trainer.new_model()
    pixels = torch.randn(batch, 3, towers.preprocess.size, towers.preprocess.size, generator=generator)
    stored = torch.randn(batch, towers.pooled_dim, generator=generator).to(machine.device)
    images = BatchImages(model, machine, None if "stored" in parts else pixels.to(machine.device), stored)
    targets = torch.rand(batch, classes, generator=generator) < 3 / classes
    labels = Labels(targets, torch.ones_like(targets), [str(row) for row in range(batch)])
    prompts = ClassSteps(model, machine, trainer.process_group)
    encode = partial(prompts.encode, positive=targets.any(dim=0))
    optimiser, rows, on_device = make_optimiser(model, params.train), np.arange(batch), labels.to(machine.device)
    return lambda: trainer.step(model, optimiser, images, encode, on_device, rows, 1)


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of ``step``, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, operations and share of the matrix rate of each kind of step, and how many times the plain path took."""
    device = prepare(parse({"runtime": {"threads": options.threads}}).runtime).device
    steps: dict[str, tuple[str, Callable[[], object]]] = {}
    for precision in ("fp32", "bf16"):
        machine = Machine(device, precision == "bf16")
        for parts in PARTS:
            step = make_step(options.backbone, parts, machine, options.classes, options.batch)
            steps[f"{parts}, {precision}"] = (precision, step)
    plain = make_step(options.backbone, PLAIN, Machine(device, False), options.classes, options.batch)
    steps[PLAIN] = ("fp32", plain)
    flops = {name: operations(step) for name, (_, step) in steps.items()}
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    products = {f"matrix product, {name}": matrix_product(dtype, device) for name, dtype in types.items()}
    works = {name: step for name, (_, step) in steps.items()} | products
    taken = in_turns(works, CLOCKS[options.clock], options.rounds)
    result: dict[str, Any] = {"about": about(options.threads, options.clock, device), "steps": {}}
    result["matrix rate"] = {name: spread([MATRIX_FLOPS / value for value in taken[name]]) for name in products}
    for name, (precision, _) in steps.items():
        product = taken[f"matrix product, {precision}"]
        at_rate = [flops[name] / MATRIX_FLOPS * value for value in product]
        result["steps"][name] = {
            "seconds": spread(taken[name]),
            "operations": flops[name],
            "share of the matrix rate": ratios(at_rate, taken[name]),
            "plain path took times": ratios(taken[PLAIN], taken[name]),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = ["| step | seconds | TFLOP | share of the matrix rate | plain path took |", "|---|---|---|---|---|"]
    for name, step in result["steps"].items():
        share, times, taken = step["share of the matrix rate"], step["plain path took times"], step["seconds"]
        rows.append(
            f"| {name} | {taken['median']:.2f} | {step['operations'] / 1e12:.2f} | {share['median']:.0%}"
            f" ({share['least']:.0%} to {share['most']:.0%}) | {times['median']:.1f} times ({times['least']:.1f} to"
            f" {times['most']:.1f}) |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="ViT-B-16", help="a ViT of open_clip (default: ViT-B-16)")
    parser.add_argument("--classes", type=from_one, default=80)
    parser.add_argument("--batch", type=from_one, default=16, help="images a step")
    parser.add_argument("--threads", type=from_one, default=2)
    parser.add_argument("--rounds", type=from_one, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: time of a single thread")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args(arguments)
    if options.clock == "processor" and options.threads > 1:
        parser.error("--clock processor measures one thread: add --threads 1")
    result = measure(options)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
