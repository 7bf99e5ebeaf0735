"""What `stages.run` says where a stage cannot start."""

from pathlib import Path

import pytest

from capnet.errors import CapnetError, ContractError
from capnet.stages import run


def test_a_missing_input_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="`capnet ingest`"):
        run("split", {}, {"manifest": tmp_path / "none"}, {"split": tmp_path / "split"})


def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(CapnetError) as found:
        run("ingest", {}, {"data": tmp_path}, {"manifest": tmp_path / "outputs" / "manifest"})
    problem = found.value.problems[0]
    assert problem.where == str(tmp_path / "outputs")
    assert problem.what
    assert problem.todo
    assert (tmp_path / "outputs").read_text() == "mine"
