"""Losses for long-tailed multi-label training, one file for each or for a small family. Every subclass of ``Loss`` with
a name in this package is a loss of ``train.loss``. What weighs classes or rows anywhere else (sampling, metrics) is in
capnet/training and capnet/evaluation.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from capnet.model.losses.base import Loss, masked_mean, multilabel_loss

__all__ = ["LOSSES", "Loss", "discover", "masked_mean", "multilabel_loss"]


def discover() -> dict[str, type[Loss]]:
    """The losses that the files of this package define, by name, in alphabetical order.

    Raises:
        ValueError: two losses have one name.
    """
    modules = [import_module(f"capnet.model.losses.{item.name}") for item in iter_modules(__path__)]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    named = dict[str, type[Loss]]()
    for kind in kinds:
        name = str(kind.model_fields["name"].default) if issubclass(kind, Loss) else ""
        if name and named.setdefault(name, kind) is not kind:
            raise ValueError(f"loss {name} is both in {named[name].__module__} and in {kind.__module__}")
    return dict(sorted(named.items()))


LOSSES = discover()
