"""What the steps of documents and scripts meet on a cluster, by the rules of the programs that they call; each rule
names the source that it restates.
"""

from __future__ import annotations

from pathlib import Path


def test_kserve_gets_its_namespace_and_definitions_first(repository: Path) -> None:
    """kserve/kserve v0.20.0, hack/release/generate-install.sh: kserve.yaml is made without its Namespace, and has the
    ClusterStorageContainer of config/base, whose kind kubectl must know before.
    """
    text = (repository / "tests" / "cluster" / "admission").read_text()
    steps = ("create namespace kserve ", "kserve-crds.yaml", "established", "/kserve.yaml", "-n kserve wait")
    places = [text.find(words) for words in steps]
    assert -1 not in places
    assert places == sorted(places)
