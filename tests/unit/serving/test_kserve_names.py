"""Names, images and amounts of a service: what Kubernetes and KServe take."""

from __future__ import annotations

import re

import pytest

from capnet.errors import ConfigError
from capnet.serving.kserve import Deployment, check_form, label, service_name

IMAGE = f"registry.example.org/team/capnet-serve@sha256:{'a' * 64}"


def test_a_name_of_which_the_standard_mode_makes_a_label() -> None:
    """isvc.NAME-predictor; KServe's webhook takes longer names, and the controller makes no service of them."""
    check_form(Deployment("a" * 48, IMAGE))
    with pytest.raises(ConfigError, match="at most 48 of"):
        check_form(Deployment("a" * 49, IMAGE))


@pytest.mark.parametrize("memory", ["4", "500m", "1000Ki"])
def test_memory_without_its_unit_is_refused(memory: str) -> None:
    with pytest.raises(ConfigError, match="a number such as 4Gi, with its unit"):
        check_form(Deployment("capnet", IMAGE, "", "capnet-serve", "1", memory))


@pytest.mark.parametrize("image", [IMAGE, "capnet-serve", "localhost:5000/capnet-serve:1.2", "[::1]:5000/a/b:main"])
def test_images_and_amounts_that_kubernetes_takes(image: str) -> None:
    for cpu, memory in (("1", "2Gi"), ("500m", "1.5G"), ("0.5", "1e9"), ("2", "2147483648")):
        check_form(Deployment(service_name("x" * 200), image, "wild-life", "default-editor", cpu, memory))


@pytest.mark.parametrize("name", ["capnet", "capnet demo", "7 classes", "Wald_und.Wiese", "x" * 200, "ß-Ü", "_"])
def test_names_and_labels_are_ones_that_kubernetes_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service_name(name))
    assert len(service_name(name)) <= 40
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", label(name))
    assert len(label(name)) <= 63
