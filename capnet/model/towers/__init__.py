"""Frozen image and text towers behind one interface, and how their weights are loaded, which never falls back to
others. Which backbones there are is in capnet/model/backbones; what is trained on the towers is in capnet/model.
"""

from capnet.model.towers.image import ImageTower, Preprocess
from capnet.model.towers.pair import Towers, assemble, tensors_digest
from capnet.model.towers.text import TextTower

__all__ = ["ImageTower", "Preprocess", "TextTower", "Towers", "assemble", "tensors_digest"]
