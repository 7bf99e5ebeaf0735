"""Component train."""

from components.train.component import train as train
