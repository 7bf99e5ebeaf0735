"""Numbers of a command line: what is out of range is refused before anything is measured."""

from __future__ import annotations

import argparse


def from_one(text: str) -> int:
    """The ``type`` of an argparse option that counts; raises ArgumentTypeError for what is no number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number
