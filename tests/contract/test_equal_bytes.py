"""Equal content gives equal files, so that DVC and a reader see that nothing changed."""

from __future__ import annotations

from pathlib import Path

import torch

from capnet.contracts import read_tensors, write_tensors


def test_a_tensor_file_is_a_function_of_its_content(tmp_path: Path) -> None:
    """safetensors keeps metadata in a hash table with a random order: one write in two would differ with two
    entries.
    """
    path = tmp_path / "x.safetensors"
    tensors, metadata = {"b": torch.arange(3), "a": torch.ones(2, 2)}, {"two": [1, 2], "one": "é"}
    written = set()
    for _ in range(40):
        write_tensors(path, tensors, metadata)
        written.add(path.read_bytes())
    assert len(written) == 1
    back, read_metadata = read_tensors(path)
    assert read_metadata == metadata
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
