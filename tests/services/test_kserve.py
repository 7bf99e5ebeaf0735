"""The committed example of a manifest, by KServe's and Kubernetes' own types."""

from __future__ import annotations

from pathlib import Path

import yaml
from services.kserve_types import faults, kserve_models


def test_the_example_is_what_kserve_takes(repository: Path) -> None:
    models = kserve_models()
    (manifest,) = yaml.safe_load_all((repository / "deploy/kserve/capnet.yaml.example").read_text())
    assert faults(manifest, "V1beta1InferenceService", models) == []
    predictor = manifest["spec"]["predictor"]
    container = predictor["containers"][0]
    container["storageUri"] = "s3://a field of other predictors"
    container["env"][0]["value"] = 1
    predictor["minReplicas"] = "one"
    assert sorted(faults(manifest, "V1beta1InferenceService", models)) == [
        ".spec.predictor.containers[0].env[0].value: 1 is no str",
        ".spec.predictor.containers[0]: no field storageUri",
        ".spec.predictor.minReplicas: 'one' is no int",
    ]
