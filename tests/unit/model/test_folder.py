"""A model folder whose settings this program does not know."""

from pathlib import Path

import pytest

from capnet.config import Runtime
from capnet.contracts import SCHEMA, write_json
from capnet.errors import ContractError
from capnet.model.folder import load_model
from capnet.runtime import prepare


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"epox": 3}}, "epox"),
        ({"tte": {"views": 7}}, "views"),
        ({"backbone": None}, "valid dictionary"),
        ({"weight_hash": ...}, "weight_hash"),
    ],
)
def test_settings_of_another_version_are_a_contract_error(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    config = {
        "schema": SCHEMA,
        "class_fingerprint": "",
        "tte": {},
        "train": {},
        "backbone": {},
        "weight_hash": "0",
    } | change
    write_json(tmp_path / "config.json", {name: value for name, value in config.items() if value is not ...})
    with pytest.raises(ContractError, match=words) as found:
        load_model(tmp_path, prepare(Runtime(threads=1)))
    assert found.value.problems[0].where == str(tmp_path / "config.json")
    assert found.value.problems[0].todo
