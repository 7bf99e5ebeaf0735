"""The registry of backbones: each entry is complete, and what it says is what its towers do."""

import json
import re
import sys
import warnings
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tomllib import loads

import open_clip
import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from capnet.config import Backbone
from capnet.errors import ConfigError
from capnet.model import backbones
from capnet.model.backbones import BACKBONES, find_backbone, load_towers
from capnet.model.backbones.entry import BackboneEntry, Licence
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS
from capnet.model.packed import build_visual
from capnet.model.towers import ImageTower
from capnet.tracking.provenance import requirements
from tests.unit.model import tiny

CHANGED_BY_TRAINING = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)
OWN = sorted(BACKBONES.keys() - {"open_clip"})


class Uninstalled(MetaPathFinder):
    """Packages that seem not to be installed."""

    def __init__(self, distributions: Collection[str]) -> None:
        self.packages = {distribution.replace("-", "_") for distribution in distributions}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"the entry of the backbone does not name a file of {name} among its files")


class NoRandomWeights(TorchDispatchMode):
    """Initialisers write NaN instead of random numbers, so that features are NaN where no file gave the weights."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        random = function.overloadpacket.__name__.removesuffix("_").removesuffix("_like")
        return result.fill_(torch.nan) if random in ("normal", "uniform", "randn", "rand") else result


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, repository):
    """Towers of a backbone by name, loaded once, where of the weight packages only those that it requires are there:
    a registered model requires no others.
    """
    demo = loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]["demo"]
    packages = {re.split("[^A-Za-z0-9_.-]", line)[0] for line in demo}
    packages |= {package for entry in BACKBONES.values() for package in entry.requirements}
    towers = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CAPNET_STATE", str(tmp_path_factory.mktemp("state")))

        def load(name):
            if name not in towers:
                tag = "random" if name == "RN50-quickgelu" else find_backbone(name).pretrained
                others = Uninstalled(packages.difference(find_backbone(name).requirements))
                for package in others.packages:
                    monkeypatch.delitem(sys.modules, package, raising=False)
                with monkeypatch.context() as hiding:
                    hiding.setattr(sys, "meta_path", [others, *sys.meta_path])
                    with nullcontext() if tag == "random" else NoRandomWeights():
                        towers[name] = load_towers(Backbone(name=name, pretrained=tag))
            return towers[name]

        yield load


@pytest.mark.parametrize("name", BACKBONES)
def test_an_entry_has_a_description_and_licences_with_their_addresses(name):
    entry = BACKBONES[name]
    assert entry.description
    assert entry.licences
    for licence in entry.licences.values():
        assert licence.text
        assert licence.addresses
        assert all(address.startswith("https://") for address in licence.addresses)


@pytest.mark.parametrize("name", OWN)
def test_a_backbone_of_our_own_has_a_licence_for_whatever_is_loaded(name):
    entry = find_backbone(name)
    hint = (
        f"{name}: no licence begins like its pretrained={entry.pretrained!r}; its licences are of {[*entry.licences]}"
    )
    assert entry.licence(entry.pretrained) != backbones.entry.UNKNOWN, hint


@pytest.mark.parametrize("document", ["README.md", "docs/air-gapped.md"])
def test_the_documents_name_every_backbone_of_our_own(document, repository):
    text = (repository / document).read_text()
    assert [name for name in OWN if f"`{name}`" not in text] == [], f"name it in {document}"


@pytest.mark.parametrize("name", OWN)
def test_a_backbone_of_our_own_names_its_weight_files(name):
    """Else a registered model would not require the packages that hold them."""
    assert find_backbone(name).files, f"{name}: give its entry files, and find them by entry.weight_file"


@pytest.mark.parametrize("name", OWN)
def test_weight_packages_are_pinned_in_pyproject_and_required_by_a_registered_model(name, repository):
    extras = loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = requirements(find_backbone(name).requirements)
    for distribution in find_backbone(name).requirements:
        try:
            installed = version(distribution)
        except PackageNotFoundError:
            pytest.fail(f"{name}: {distribution} is not installed: put it into the extra demo of pyproject.toml")
        assert f"{distribution}=={installed}" in lines
        assert [line for line in extras["demo"] if line.startswith(f"{distribution}==")], f"pin {distribution} there"


@pytest.mark.slow  # loads every backbone
@pytest.mark.parametrize("name", [*OWN, "RN50-quickgelu"])
def test_towers_are_normalised_and_centred_as_the_entry_says(name, loaded):
    entry, towers = find_backbone(name), loaded(name)
    assert (towers.centring is not None) == entry.centring
    if entry.normalisation is not None:
        assert (towers.preprocess.mean, towers.preprocess.std) == entry.normalisation
        assert towers.preprocess.size == entry.image_size
    assert all(0 < value < 1 for value in (*towers.preprocess.mean, *towers.preprocess.std))
    layers = [module for tower in (towers.image, towers.text) for module in tower.modules() if module.training]
    assert [layer for layer in layers if isinstance(layer, CHANGED_BY_TRAINING)] == [], "eval() is missing"


@pytest.mark.slow
def test_backbones_with_other_weights_have_other_hashes(loaded):
    """Stored features, graphs and registered models are identified by them."""
    hashes = [loaded(name).weight_hash for name in OWN]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{64}", weight_hash) for weight_hash in hashes)


@pytest.mark.parametrize("name", [name for name in OWN if BACKBONES[name].timm_name])
def test_an_image_tower_gets_images_as_timm_says_that_it_was_trained(name):
    entry = find_backbone(name)
    published = timm.get_pretrained_cfg(entry.timm_name)
    assert entry.normalisation == (published.mean, published.std)
    assert published.input_size == (3, entry.image_size, entry.image_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OWN, "RN50-quickgelu"])
def test_a_packed_image_tower_is_built_again_without_the_backbones_files(name, loaded):
    towers = loaded(name)
    visual = build_visual(towers.architecture)
    visual.load_state_dict(towers.image.visual.state_dict())
    image = ImageTower(visual.requires_grad_(False).eval())
    size = towers.preprocess.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(image.project(image.pooled(images)), towers.image.project(towers.image.pooled(images)))


def test_random_numbers_are_seen():
    """open_clip's transformers begin with torch.randn, most other layers with an initialiser."""
    with NoRandomWeights():
        made = [torch.randn(2), torch.rand(2), torch.randn_like(torch.ones(2)), torch.normal(0.0, 1.0, (2,))]
        made += [torch.nn.Linear(2, 2).weight, torch.nn.init.trunc_normal_(torch.empty(2))]
        ones = torch.ones(2)
    assert all(tensor.isnan().all() for tensor in made)
    assert ones.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_no_weight_of_a_tower_is_random(name, loaded):
    """A tower whose weights no file gave scores like any other, only wrongly."""
    towers, hint = loaded(name), "tower of {} has weights that no file gave"
    size = towers.preprocess.size
    assert towers.text(["a fox"]).isfinite().all(), f"the text {hint.format(name)}"
    features = towers.image.project(towers.image.pooled(torch.zeros(1, 3, size, size)))
    assert features.isfinite().all(), f"the image {hint.format(name)}"


@pytest.mark.parametrize(
    ("name", "pretrained", "weight_hash", "text"),
    [
        ("lit-efflite0-minilm", "wheels", "", "Apache-2.0"),
        ("ViT-B-16-quickgelu", "openai", "", "MIT"),
        ("ViT-B-16-quickgelu", "weights/ViT-B-16.pt", next(iter(OPENAI_WEIGHTS)), "MIT"),
        ("ViT-B-16", "laion2b_s34b_b88k", "", "MIT"),
        ("ViT-B-16-SigLIP", "webli", "", "Apache-2.0"),
        ("ViT-B-16-quickgelu", "metaclip_400m", "", "CC BY-NC 4.0"),
        ("ViT-H-14-worldwide", "metaclip2_worldwide", "", "CC BY-NC 4.0"),
        ("PE-Core-B-16", "meta", "", "Apache-2.0 (Meta's Perception Encoder)"),
        ("ViT-L-14-CLIPA", "datacomp1b", "", "not known"),  # two publishers have this tag
        ("ViT-H-14-CLIPA-336", "laion2b", "", "Apache-2.0 (CLIPA)"),
        ("ViT-B-16", "weights/openai.pt", "", "not known"),
        ("ViT-B-16", "openai-ours.pt", "0" * 64, "not known"),
        ("ViT-B-16", "laion/ours", "0" * 64, "not known"),
        ("RN50", "yfcc15m", "", "not known"),
        ("RN50", "random", "", "random numbers"),
        ("lit-like-nothing-known", "wheels", "", "not known"),
    ],
)
def test_a_licence_is_that_of_the_weights_or_said_to_be_unknown(name, pretrained, weight_hash, text):
    assert text in str(find_backbone(name).licence(pretrained, weight_hash))


def test_a_backbone_takes_one_file(tmp_path, monkeypatch):
    """A file put into the package is found, and its loader is the one that runs."""
    (tmp_path / "slow_clip.py").write_text(
        "from capnet.model.backbones.entry import BackboneEntry, Licence\n\n"
        "MIT = Licence('MIT', ('https://example.org',))\n"
        "def load(entry, settings, size, names):\n    return entry.name, settings, size\n\n"
        "BACKBONES = (BackboneEntry('slow-clip', 'wheels', 'a test', load, {'': MIT}),)\n"
    )
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    entries = backbones.discover()
    assert entries.keys() - BACKBONES.keys() == {"slow-clip"}
    monkeypatch.setitem(BACKBONES, "slow-clip", entries["slow-clip"])
    settings = Backbone(name="slow-clip", pretrained="wheels")
    assert load_towers(settings, 64) == ("slow-clip", settings, 64)
    assert str(find_backbone("slow-clip").licence("wheels")) == "MIT: https://example.org"
    (tmp_path / "copied_clip.py").write_text((tmp_path / "slow_clip.py").read_text())
    with pytest.raises(ValueError, match=r"backbone slow-clip is both in copied_clip\.py and in slow_clip\.py"):
        backbones.discover()


def test_a_backbone_with_weights_of_its_own_never_passes_for_others(monkeypatch):
    """Else a loader that does not read ``backbone.pretrained`` gives its own weights under any tag."""
    entry = replace(find_backbone("lit-efflite0-minilm"), load=lambda *_: "loaded")
    monkeypatch.setitem(BACKBONES, entry.name, entry)
    assert [load_towers(Backbone(name=entry.name, pretrained=tag)) for tag in ("", "wheels")] == ["loaded", "loaded"]
    with pytest.raises(ConfigError, match=r"'openai': lit-efflite0-minilm has one set of weights(?s:.)*: wheels"):
        load_towers(Backbone(name=entry.name))


def test_only_substitutes_warn():
    assert "not CLIP" in find_backbone("lit-efflite2-minilm").warning
    assert find_backbone("ViT-B-16").warning == ""


@pytest.mark.parametrize("licences", [{}, {"": Licence("MIT")}, {"": Licence("", ("https://example.org",))}])
def test_an_entry_without_a_licence_or_its_address_is_refused(licences):
    with pytest.raises(ValueError, match="backbone slow-clip: its licences need a text and an address"):
        BackboneEntry("slow-clip", "wheels", "a test", load_towers, licences)


def test_a_weight_file_that_the_entry_does_not_name_is_refused():
    """Otherwise a registered model would not require the package that holds it."""
    entry = find_backbone("lit-efflite0-minilm")
    image, text = entry.files
    assert entry.weight_file(text).is_file()
    with pytest.raises(ValueError, match=f"{text.distribution} is not among the entry's files"):
        replace(entry, files=(image,)).weight_file(text)


@pytest.mark.parametrize("kept", [0, 1])
def test_an_offline_backbone_without_the_weights_of_a_tower_is_refused(kept):
    entry = find_backbone("lit-efflite0-minilm")
    careless = replace(entry, files=entry.files[:kept])
    with pytest.raises(ValueError, match=f"backbone {entry.name}: it takes two weight files.*, not {kept}"):
        careless.load(careless, Backbone(name=entry.name, pretrained="wheels"), 0, [entry.name])


@pytest.mark.slow
@pytest.mark.parametrize("is_set_to", [True, False])
def test_an_offline_backbone_is_quiet_where_a_variable_decides_about_progress_bars(is_set_to, monkeypatch):
    """HF_HUB_DISABLE_PROGRESS_BARS, as images of containers set it; its library reads it while it is imported."""
    library = import_module("huggingface_hub.utils.tqdm")
    monkeypatch.setattr(library, "HF_HUB_DISABLE_PROGRESS_BARS", is_set_to)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*progress bars")
        load_towers(Backbone(name="lit-efflite0-minilm", pretrained="wheels"))


def test_one_file_with_another_activation_has_other_stored_features(tmp_path: Path) -> None:
    """ViT-B-16 and ViT-B-16-quickgelu read the same files."""
    for name, quick in (("tiny-act", False), ("tiny-act-quickgelu", True)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**tiny.CONFIGS["tiny-clip"], "quick_gelu": quick}))
    open_clip.add_model_config(tmp_path)
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("tiny-act", pretrained=None).state_dict(), weights)
    plain, again, quick = (
        load_towers(Backbone(name=name, pretrained=str(weights)))
        for name in ("tiny-act", "tiny-act", "tiny-act-quickgelu")
    )
    assert plain.weight_hash == quick.weight_hash
    assert plain.feature_key == again.feature_key != quick.feature_key
