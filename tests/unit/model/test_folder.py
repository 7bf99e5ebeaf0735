"""A model folder whose settings this program does not know."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from capnet.config import Runtime, Train
from capnet.contracts import SCHEMA, write_json
from capnet.errors import ContractError
from capnet.model.folder import load_model, renamed
from capnet.runtime import prepare

ADAPTER = {"location": "joint", "bottleneck": 8}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"epox": 3}}, "epox"),
        ({"tte": {"views": 7}}, "views"),
        ({"backbone": None}, "valid dictionary"),
        ({"backbone": {"pretrained": "random"}}, "no backbone.name"),
        ({"backbone": {"name": "RN50"}}, "no backbone.pretrained"),
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
    with pytest.raises(ContractError, match=words) as caught:
        load_model(tmp_path, prepare(Runtime(threads=1)))
    assert caught.value.problems[0].where == str(tmp_path / "config.json")
    assert caught.value.problems[0].todo


def test_settings_that_were_renamed_are_read_but_a_wrong_one_is_not() -> None:
    loss = {"name": "asl", "alpha": 0.1, "mu": 0.2, "gamma": 2.0, "gamma_positive": 0.0, "gamma_negative": 3.0}
    old = {"loss": loss, "adapter": {"place": "joint", "bottleneck": 8}}
    read = Train.model_validate(renamed(old))
    assert read == Train.model_validate(
        {"loss": {"name": "asl", "gamma_positive": 0.0, "gamma_negative": 3.0}, "adapter": ADAPTER}
    )
    assert loss["alpha"] == 0.1, "what was given stays as it is"
    for wrong in ({"loss": {"name": "asl", "gama": 2.0}}, {"loss": {"name": "gone", "alpha": 0.1}}):
        with pytest.raises(ValidationError):
            Train.model_validate(renamed(wrong))
