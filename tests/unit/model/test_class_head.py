"""The class head: zero-shot at the start, alone among its parameters trained by its loss, and at the optimum of a
convex problem.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from unit.model.test_capnet import OFF, build, images

from capnet.model import capnet
from capnet.model.class_head import ClassHead, fit_start
from capnet.model.losses import LOSSES, Loss, multilabel_loss

HEAD = {"class_head": {"enabled": True}}


class Ranking(Loss):
    """Of pairs of an image's labels, one there and one not: no shared bias changes it."""

    def compute(self, logits, targets, counts, n_images, known):
        present, absent = (targets > 0) & known, (targets == 0) & known
        pairs = present[:, :, None] & absent[:, None, :]
        return torch.nn.functional.softplus(logits[:, None, :] - logits[:, :, None])[pairs].mean()


def test_before_training_the_head_is_zero_shot_up_to_its_scale_and_bias(lit):
    model = build(lit, **HEAD, head={"logit_scale": 7.0, "bias_init": -2.0})
    with torch.no_grad():
        pooled = lit.image.pooled(images(lit, 5))
        members = model.members(pooled, model.class_features(), pooled)
        v = torch.nn.functional.normalize(lit.image.project(pooled), dim=-1)
        t = torch.nn.functional.normalize(
            lit.centre(lit.text([f"a photo of a {name}." for name in ("dog", "cat", "traffic light", "bus")])), dim=-1
        )
    assert torch.allclose(members["class_head"], 7.0 * v @ t.T - 2.0, atol=1e-4)
    assert model.weights == {"capnet": 0.5, "class_head": 0.5}
    assert torch.allclose(model.served(members), (members["capnet"] + members["class_head"]) / 2)


def test_logits_are_the_written_formula():
    head = ClassHead(3, 6, 4.0, -1.0)
    rng = np.random.default_rng(0)
    train, x, cosines = (rng.normal(2.0, 3.0, shape).astype(np.float32) for shape in ((40, 2, 6), (5, 6), (5, 3)))
    head.set_statistics(torch.from_numpy(train))
    weight = rng.normal(size=(3, 6)).astype(np.float32)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        result = head(torch.from_numpy(x), torch.from_numpy(cosines)).numpy()
    flat = train.reshape(-1, 6)
    expected = 4.0 * cosines - 1.0 + (x - flat.mean(axis=0)) / flat.std(axis=0) @ weight.T
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_feature_that_never_changes_does_no_harm():
    head = ClassHead(2, 3, 10.0, 0.0)
    head.set_statistics(torch.tensor([[[1.0, 0.0, 5.0]], [[2.0, 0.0, 5.0]]]))
    with torch.no_grad():
        head.weight.fill_(1.0)
        assert torch.isfinite(head(torch.tensor([[1.0, 0.0, 5.0]]), torch.zeros(1, 2))).all()


@pytest.mark.parametrize("tower", ["tiny-clip", "lit"])
def test_the_head_and_the_five_parts_do_not_train_each_other(tower, make_towers, lit):
    """With the head, the five parts get the gradients that they have without it; its loss reaches nothing but the
    head.
    """
    towers = lit if tower == "lit" else make_towers(tower)
    targets = torch.tensor([[True, False, True, False], [False, True, False, False], [False, False, False, True]])
    counts = targets.sum(dim=0)

    def gradients(settings):
        model = build(towers, prompt=OFF, **settings)
        encoded = model.encode(model.pooled(images(towers)))
        total, _ = model.losses(
            encoded, model.class_features(), lambda logits, loss: multilabel_loss(logits, targets, counts, 3, loss)
        )
        total.backward()
        model.release_towers()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    plain, with_head = gradients({}), gradients(HEAD)
    assert set(with_head) - set(plain) == {"class_head.weight", "class_head.logit_scale", "class_head.logit_bias"}
    for name, gradient in plain.items():
        torch.testing.assert_close(with_head[name], gradient, msg=name)
    assert all(with_head[name].abs().sum() > 0 for name in set(with_head) - set(plain))


@pytest.mark.parametrize("name", [*LOSSES, "ranking"])
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 0.1), (0.2, 0.03)])
def test_the_start_fits_the_data_whatever_the_towers_geometry(name, offset, spread):
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(400, 30))
    targets = torch.from_numpy(latent + rng.normal(size=latent.shape) > 2.2)
    known = torch.from_numpy(rng.random(latent.shape) > 0.1)
    cosines = torch.from_numpy(offset + spread * latent).float()
    counts, loss = (targets & known).sum(dim=0), (LOSSES | {"ranking": Ranking})[name]()
    scale, bias = fit_start(cosines, targets & known, known, counts, loss)
    assert scale * spread == pytest.approx(1.0, rel=0.02)

    def value(shift):
        return float(
            multilabel_loss(scale * cosines.double() + float(shift[0]), targets & known, counts, 400, loss, known)
        )

    best = minimize(value, x0=[-3.0 - scale * offset], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-12})
    is_free = abs(value([bias + 1.0]) - value([bias])) < 1e-9
    expected = -3.0 - scale * float(cosines.mean()) if is_free else best.x[0]
    assert bias == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_start_stays_finite_where_labels_or_cosines_say_nothing(share):
    targets = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) < share
    for cosines in (torch.zeros(6, 3), torch.randn(6, 3)):
        scale, bias = fit_start(cosines, targets, torch.ones_like(targets), targets.sum(dim=0), LOSSES["db_focal"]())
        assert 1.0 <= scale <= 200.0
        assert np.isfinite(bias)


def test_settings_start_where_they_say(lit):
    views = torch.randn(8, 2, 1280, generator=torch.Generator().manual_seed(2)).abs()
    targets = torch.rand(8, 4, generator=torch.Generator().manual_seed(3)) < 0.3
    known = torch.ones_like(targets)
    fixed = build(lit, **HEAD, head={"start": "settings", "logit_scale": 25.0, "bias_init": -6.0})
    fixed.prepare_for(views, targets, known)
    assert fixed.logit_scale.exp().item() == pytest.approx(25.0)
    assert float(fixed.logit_bias) == -6.0
    fitted = build(lit, **HEAD, head={"logit_scale": 25.0, "bias_init": -6.0})
    fitted.prepare_for(views, targets, known)
    assert float(fitted.logit_bias) != -6.0
    assert float(fitted.class_head.logit_bias) != float(fitted.logit_bias), "each with the loss that it is trained with"
    without = build(lit, head={"bias": False, "logit_scale": 25.0})
    without.prepare_for(views, targets, known)
    assert without.logit_scale.exp().item() == pytest.approx(25.0), "as published, where there is no bias to go with it"


def test_many_images_start_from_an_even_sample_of_them(lit, monkeypatch):
    views = torch.randn(30, 2, 1280, generator=torch.Generator().manual_seed(2)).abs()
    targets = torch.rand(30, 4, generator=torch.Generator().manual_seed(3)) < 0.3
    known = torch.ones_like(targets)
    whole, part, sample = (build(lit) for _ in range(3))
    whole.prepare_for(views, targets, known)
    part.prepare_for(views[::3], targets[::3], known[::3])
    monkeypatch.setattr(capnet, "START_ENTRIES", 50)
    sample.prepare_for(views, targets, known)
    assert torch.equal(sample.logit_bias, part.logit_bias)
    assert torch.equal(sample.logit_scale, part.logit_scale)
    assert not torch.equal(sample.logit_bias, whole.logit_bias)
