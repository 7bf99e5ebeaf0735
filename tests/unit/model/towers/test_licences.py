"""What an entry says about the terms of its weights is among what the packages that hold them say of themselves."""

import re
from importlib.metadata import distribution

import pytest

from capnet.model.backbones import BACKBONES, find_backbone

PACKAGED = sorted(name for name, entry in BACKBONES.items() if entry.files)
NAMES = {
    "Apache-2.0": r"apache[- ](2|licen[cs]e|software licen[cs]e)",
    "MIT": r"(?-i:\bMIT\b)",
    "BSD": r"\bBSD\b",
    "GPL": r"\bA?GPL\b|GNU (affero )?general public",
    "CC BY": r"\bCC[- ]BY\b|creative commons",
}
STATED = re.compile(r"(^|/)(LICENSE|LICENCE|COPYING|README|METADATA)[^/]*$")


def named(text: str) -> set[str]:
    """The licences of NAMES that a text names."""
    return {name for name, pattern in NAMES.items() if re.search(pattern, text, re.IGNORECASE)}


def stated(package: str) -> set[str]:
    """The licences that a package's own licence, README and metadata name."""
    files = [file for file in distribution(package).files or [] if STATED.search(str(file))]
    return set().union(*(named(file.read_text(encoding="utf-8")) for file in files))


@pytest.mark.parametrize("name", PACKAGED)
def test_the_licences_of_an_entry_are_those_that_its_packages_state(name):
    entry = find_backbone(name)
    texts = " ".join(licence.text for licence in entry.licences.values())
    packages = {package: stated(package) for package in entry.requirements}
    hint = f"{name} says {texts!r}; its packages say {packages}. Add a licence that NAMES lacks there"
    assert named(texts), hint
    assert named(texts) <= set().union(*packages.values()), hint
    assert all(named(texts) & found for found in packages.values()), hint
