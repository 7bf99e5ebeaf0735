"""The losses against the reference numbers, against PyTorch's own functions and under masks."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from capnet.config import parse
from capnet.model import losses
from capnet.model.losses import LOSSES, multilabel_loss
from capnet.model.losses.asymmetric import Asymmetric, asymmetric_elements
from capnet.model.losses.cross_entropy import Bce, Focal, bce_elements
from capnet.model.losses.distribution_balanced import (
    Balanced,
    Db,
    DbFocal,
    negative_tolerant_shift,
    rebalanced_weight,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
# divided by images, and by classes that have a label; every other loss by the known entries
OTHERWISE_DIVIDED = {"db_focal_lmpt"}


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "reference" / "db_loss_fixture.json").read_text())["cases"]


def loss_settings(config, name="db_focal"):
    tolerant = config["kappa_init_bias"] is not None
    plain = config["reweight"] is None
    if plain:
        return Bce()
    return LOSSES[name](
        alpha=config["alpha"],
        beta=config["beta"],
        mu=config["mu"],
        kappa=config["kappa_init_bias"] if tolerant else 0.0,
        negative_scale=config["lambda_neg_scale"] if tolerant else 1.0,
        gamma=config["focal_gamma"],
        blank="db",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_match_every_reference_case(cases, dtype):
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=dtype, requires_grad=True)
        targets = torch.tensor(case["labels"])
        counts = torch.tensor(case["class_freq"])
        loss = multilabel_loss(logits, targets, counts, case["train_num"], loss_settings(case["config"]))
        loss.backward()
        expected = case["expected_float64"]
        assert abs(loss.item() - expected["loss_mean"]) < TOLERANCE[dtype], case["name"]
        gradient = torch.tensor(expected["grad_of_mean_wrt_logits"], dtype=dtype)
        assert (logits.grad - gradient).abs().max() < TOLERANCE[dtype], case["name"]


def test_weights_and_shift_match_the_reference(cases):
    for case in (case for case in cases if case["config"]["reweight"]):
        config, expected = case["config"], case["expected_float64"]
        targets = torch.tensor(case["labels"], dtype=torch.float64)
        counts = torch.tensor(case["class_freq"], dtype=torch.float64)
        weight = rebalanced_weight(targets, counts, config["alpha"], config["beta"], config["mu"], "db")
        np.testing.assert_allclose(weight, expected["class_weight_r"], atol=1e-12)
        if config["kappa_init_bias"] is not None:
            shift = negative_tolerant_shift(
                counts, case["train_num"], config["kappa_init_bias"], config["lambda_neg_scale"]
            )
            np.testing.assert_allclose(shift, expected["init_bias_nu"], atol=1e-12)


def test_lmpt_variant_matches_the_reference(cases):
    for case in (case for case in cases if case["config"]["focal"]):
        logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        loss = multilabel_loss(
            logits,
            torch.tensor(case["labels"]),
            torch.tensor(case["class_freq"]),
            case["train_num"],
            loss_settings(case["config"], "db_focal_lmpt"),
        )
        loss.backward()
        assert loss.item() == pytest.approx(case["lmpt_variant_float64_scalar"], abs=1e-10), case["name"]
        np.testing.assert_allclose(logits.grad, case["lmpt_variant_float64_grad"], atol=1e-10)


def test_the_distribution_balanced_focal_loss_is_the_equations_of_the_paper():
    """Wu et al., ECCV 2020, sections 3.2 and 3.3, one entry after the other; also where no reference numbers are."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    targets, counts = torch.rand(12, 4, generator=generator) < 0.5, [30, 12, 5, 1]
    entries = []
    for z_of, y_of in zip(logits.tolist(), targets.tolist(), strict=True):
        instance = sum(y / n for y, n in zip(y_of, counts, strict=True))
        for z, y, n in zip(z_of, y_of, counts, strict=True):
            ratio = (1 / n) / instance if instance else 0.3  # r = mu for an image without a label
            weight = 0.1 + 1 / (1 + math.exp(-10.0 * (ratio - 0.3)))
            z -= 0.05 * math.log(40 / n - 1) / 2.0  # a rare class must reach more
            entropy = math.log1p(math.exp(-z if y else 2.0 * z))
            entries.append(weight * 2 * (1 - math.exp(-entropy)) ** 2 * entropy / (1 if y else 2.0))
    loss = multilabel_loss(logits, targets, torch.tensor(counts), 40, LOSSES["db_focal"](mu=0.3))
    assert float(loss) == pytest.approx(sum(entries) / len(entries), rel=1e-12)


def test_an_image_without_labels_gets_the_largest_or_the_middle_weight():
    counts = torch.tensor([120.0, 40.0, 2.0])
    blank = torch.zeros(1, 3)
    assert torch.allclose(rebalanced_weight(blank, counts, 0.1, 10.0, 0.3, "db"), torch.tensor(1.1))
    assert torch.allclose(rebalanced_weight(blank, counts, 0.1, 10.0, 0.3, "neutral"), torch.tensor(0.6))
    assert torch.allclose(rebalanced_weight(blank, counts, 0.1, 0.0, 0.3, "db"), torch.tensor(0.6)), "0 times infinity"


def test_bce_equals_pytorch_and_focal_equals_its_definition():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    targets = (torch.rand(7, 5, generator=generator) < 0.3).double()
    counts = torch.full((5,), 3)
    elements = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.allclose(multilabel_loss(logits, targets, counts, 30, Bce()), elements.mean())
    p = torch.where(targets > 0, logits.sigmoid(), 1 - logits.sigmoid())
    assert torch.allclose(
        multilabel_loss(logits, targets, counts, 30, Focal(gamma=2)),
        (2.0 * (1 - p) ** 2 * elements).mean(),
    )


def test_asymmetric_loss_equals_its_definition():
    logits = torch.tensor([[-3.0, 0.2, 2.0]], dtype=torch.float64)
    targets = torch.tensor([[0, 1, 0]])
    p = logits.sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    expected = torch.where(targets > 0, -torch.log(p), -(shifted**4) * torch.log(1 - shifted))
    assert torch.allclose(multilabel_loss(logits, targets, torch.tensor([3, 3, 3]), 9, Asymmetric()), expected.mean())
    hard = torch.tensor([[60.0, -60.0]], dtype=torch.float32, requires_grad=True)
    loss = multilabel_loss(hard, torch.tensor([[0, 1]]), torch.tensor([3, 3]), 9, Asymmetric())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(hard.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_entries_have_no_effect_at_all(name):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    targets = (torch.rand(6, 4, generator=generator) < 0.4).double()
    known = torch.rand(6, 4, generator=generator) < 0.7
    counts = torch.tensor([9, 5, 3, 1])

    def value(x, y):
        x = x.clone().requires_grad_()
        loss = multilabel_loss(x, y, counts, 20, LOSSES[name](), known)
        loss.backward()
        return loss.detach(), x.grad

    loss, gradient = value(logits, targets)
    other, other_gradient = value(torch.where(known, logits, logits + 5), torch.where(known, targets, 1 - targets))
    assert loss == other
    assert torch.equal(gradient, other_gradient)
    assert (gradient[~known] == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - OTHERWISE_DIVIDED))
def test_a_loss_with_unknown_labels_is_that_of_each_image_on_its_known_classes_alone(name):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    targets, known = (torch.rand(40, 5, generator=generator) < share for share in (0.4, 0.7))
    counts, whole = torch.tensor([9, 5, 3, 2, 1]), 0.0
    for x, y, k in zip(logits, targets, known, strict=True):
        if k.any():
            whole += k.sum() * multilabel_loss(x[k][None], y[k][None], counts[k], 40, LOSSES[name]())
    loss = multilabel_loss(logits, targets, counts, 40, LOSSES[name](), known)
    assert float(loss) == pytest.approx(float(whole / known.sum()), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_steps_put_the_positives_of_every_class_above_its_negatives(name):
    """Of free logits, so that nothing but the loss decides: with exchanged targets, another sign or a constant it does
    not fall where the ranking gets better.
    """
    targets = torch.rand(40, 4, generator=torch.Generator().manual_seed(6)) < torch.tensor([0.6, 0.3, 0.1, 0.0])
    targets[5, 3] = True
    logits = torch.zeros(40, 4, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        multilabel_loss(logits, targets, targets.sum(dim=0), 40, LOSSES[name]()).backward()
        optimiser.step()
    for scores, positive in zip(logits.detach().T, targets.T, strict=True):
        assert positive.any()
        assert scores[positive].min() > scores[~positive].max(), "the loss must fall as positives rise above negatives"


@pytest.mark.parametrize("name", LOSSES)
def test_classes_in_no_or_every_image_and_large_logits_stay_finite(name):
    logits = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 30.0]], requires_grad=True)
    loss = multilabel_loss(logits, torch.tensor([[0, 1, 0], [1, 1, 0]]), torch.tensor([0, 10, 5]), 10, LOSSES[name]())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("known", [[True, True], [False, False]])
def test_an_image_without_a_label_or_without_a_known_one_stays_finite(name, known):
    """A mean over the positive or the known entries of each image divides by zero there."""
    logits = torch.tensor([[0.5, -0.5], [1.0, -2.0]], requires_grad=True)
    masks = torch.tensor([[True, True], known])
    loss = multilabel_loss(logits, torch.tensor([[1, 0], [0, 0]]), torch.tensor([3, 2]), 9, LOSSES[name](), masks)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_elements_that_underflow_have_a_finite_gradient_for_every_gamma(gamma):
    logits = torch.tensor([[-200.0, 200.0, -200.0]], requires_grad=True)
    multilabel_loss(logits, torch.tensor([[0, 1, 1]]), torch.tensor([3, 3, 3]), 9, DbFocal(gamma=gamma)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("gamma_positive", "gamma_negative", "clip"),
    [(0.5, 0.5, 0.05), (0.0, 4.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.5, 1.0), (0, 0, 0.05)],
)
def test_asymmetric_loss_is_finite_for_every_exponent_and_clip(gamma_positive, gamma_negative, clip):
    settings = Asymmetric(gamma_positive=gamma_positive, gamma_negative=gamma_negative, clip=clip)
    for target in (0, 1):
        logits = torch.tensor([[-200.0, -8.0, 0.0, 8.0, 17.0, 40.0, 200.0]], requires_grad=True)
        loss = multilabel_loss(logits, torch.full((1, 7), target), torch.full((7,), 3), 9, settings)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
        elements = asymmetric_elements(logits, torch.full((1, 7), target), gamma_positive, gamma_negative, clip)
        assert (elements >= 0).all(), "a negative below the clip costs nothing and earns nothing"


def test_confident_elements_keep_every_digit_of_float64():
    # negative_scale times a logit lies above 20, where torch's softplus rounds
    logits = np.array([[4.02, 4.1, 20.5, -20.5, 25.0]])
    targets = np.array([[0, 0, 1, 1, 1]])
    margins = np.where(targets > 0, -1.0, 5.0) * logits
    values = np.maximum(margins, 0) + np.log1p(np.exp(-np.abs(margins)))
    slopes = np.where(targets > 0, -1.0, 5.0) / (1 + np.exp(-margins))
    weight = np.where(targets > 0, 1.0, 0.2)  # alpha is 1 and the sigmoid of the re-balanced weight is 0
    x = torch.tensor(logits, requires_grad=True)
    settings = Db(alpha=1.0, beta=1000.0, mu=1000.0, kappa=0.0, negative_scale=5.0)
    loss = multilabel_loss(x, torch.from_numpy(targets), torch.full((5,), 3), 9, settings)
    loss.backward()
    np.testing.assert_allclose(loss.item(), (weight * values).mean(), rtol=1e-14)
    np.testing.assert_allclose(x.grad, weight * slopes / 5, rtol=1e-13)


def test_negatives_are_tolerated_by_their_scale():
    z = torch.tensor([[1.0, 1.0]])
    elements = bce_elements(z, torch.tensor([[1.0, 0.0]]), 5.0)
    assert torch.allclose(elements, torch.nn.functional.softplus(torch.tensor([[-1.0, 5.0]])))


def test_a_loss_takes_one_file(tmp_path, monkeypatch, repository):
    """The example of the recipe, put into the package under another name, is a loss with settings of its own."""
    recipe = (repository / "CONTRIBUTING.md").read_text().partition("## Add a loss")[2]
    program = recipe.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "made_up.py").write_text(program.replace('"hinge"', '"made_up"'))
    monkeypatch.setattr(losses, "__path__", [*losses.__path__, str(tmp_path)])
    result = losses.discover()
    assert result.keys() - LOSSES.keys() == {"made_up"}
    logits, targets = torch.tensor([[2.0, 0.5]]), torch.tensor([[1, 0]])
    assert multilabel_loss(logits, targets, torch.ones(2), 1, result["made_up"](margin=2.0)) == pytest.approx(1.25)
    # a copy that keeps the name
    (tmp_path / "other.py").write_text((tmp_path / "made_up.py").read_text())
    with pytest.raises(ValueError, match=r"loss made_up is both in capnet.model.losses.made_up and in .*\.other"):
        losses.discover()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_complete(name):
    kind = LOSSES[name]
    assert kind.__doc__
    assert kind.compute is not losses.Loss.compute
    assert [field for field, info in kind.model_fields.items() if field != "name" and not info.description] == []
    arrived = parse({"train": {"loss": dict(reversed(kind().model_dump(mode="json").items()))}}).train.loss
    assert (type(arrived), arrived) == (kind, kind())


def test_the_method_names_every_loss(repository):
    text = (repository / "docs/method.md").read_text()
    assert [name for name in LOSSES if f"`{name}`" not in text] == [], "name it with its source in docs/method.md"


def test_a_family_without_a_name_is_no_loss():
    assert Balanced not in LOSSES.values()
