"""Adjacencies and the GCN against the reference numbers, and against the formulas written out."""

import json

import numpy as np
import pytest
import torch

from capnet.model.gcn import LabelGcn
from capnet.model.graph import (
    adjacency,
    blend,
    cooccurrence,
    cosine_similarity,
    linear_adjacency,
    neighbour_count,
    softmax_adjacency,
)


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "reference" / "scpnet_gcn_fixture.json").read_text())


def test_both_adjacencies_match_the_reference(reference):
    for case in reference["relation_cases"]:
        similarity = torch.tensor(case["cosine_relation"], dtype=torch.float64)
        a = linear_adjacency(similarity, case["topk_including_self"], case["s_reweight"])
        np.testing.assert_allclose(a, case["gcn_adjacency"], atol=2e-7, rtol=0)
        np.testing.assert_allclose(
            softmax_adjacency(a, case["softmax_temperature"]), case["softmax_prior"], atol=2e-7, rtol=0
        )


def test_gcn_forward_matches_the_reference(reference):
    case = reference["gcn_case"]
    features = torch.tensor(case["text_features"], dtype=torch.float64)
    weights = [torch.tensor(weight, dtype=torch.float64) for weight in case["weights"]]
    gcn = LabelGcn(
        torch.tensor(case["adjacency"], dtype=torch.float64), features.shape[1], weights[0].shape[1]
    ).double()
    for own, reference_weight in zip(gcn.weights, weights, strict=True):
        own.data.copy_(reference_weight)
    np.testing.assert_allclose(gcn(features).detach(), case["gcn_output"], atol=1e-12)
    np.testing.assert_allclose((features + gcn(features)).detach(), case["residual_output"], atol=1e-12)


def test_adjacency_written_out_by_hand():
    rng = np.random.default_rng(5)
    r = rng.uniform(0.1, 0.9, (7, 7))
    np.fill_diagonal(r, 1.0)
    expected = np.zeros((7, 7))
    for i in range(7):
        neighbours = [j for j in np.argsort(-r[i]) if j != i][:3]
        for j in neighbours:
            expected[i, j] = 0.2 * r[i, j] / sum(r[i, k] for k in neighbours)
        expected[i, i] = 0.8
    np.testing.assert_allclose(adjacency(torch.from_numpy(r), 4, 0.2, 0.3, "linear"), expected, atol=1e-12)
    kept = expected > 0
    softmax = np.where(kept, np.exp(expected / 0.3), 0)
    softmax /= softmax.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(adjacency(torch.from_numpy(r), 4, 0.2, 0.3, "softmax"), softmax, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["linear", "softmax"])
def test_rows_sum_to_one_even_for_a_class_without_neighbours(normalisation):
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[0, 1] = similarity[1, 0] = 0.5
    similarity[2, 0] = -0.4  # opposed labels are no neighbours
    result = adjacency(similarity, 1.0, 0.2, 0.2, normalisation)
    assert torch.allclose(result.sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert result[3, 3] == 1
    assert result[2, 0] == 0


def test_neighbours_are_a_share_up_to_one_and_a_count_above():
    assert neighbour_count(0.775, 80) == 62
    assert neighbour_count(1.0, 20) == 20
    assert neighbour_count(50, 81) == 50
    assert neighbour_count(50, 3) == 3
    assert neighbour_count(0.01, 3) == 1


def test_cooccurrence_is_the_conditional_frequency():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    known = np.ones_like(labels)
    np.testing.assert_allclose(cooccurrence(labels, known), [[1, 2 / 3, 0], [1, 1, 0], [0, 0, 0]])
    known[1, 1] = False  # nobody looked for class 1 there, so it is no picture without it
    np.testing.assert_allclose(cooccurrence(labels, known), [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_blend_trusts_text_for_rare_and_counts_for_frequent_classes():
    text = torch.tensor([[1.0, 0.6, 0.2], [0.6, 1.0, 0.2], [0.2, 0.2, 1.0]], dtype=torch.float64)
    counted = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.5, 0.5, 1.0]], dtype=torch.float64)
    mixed = blend(text, counted, torch.tensor([0.0, 1e12, 20.0]), 20.0)
    np.testing.assert_allclose(mixed[0], [1, 0.75, 0.25])
    np.testing.assert_allclose(mixed[1], [0, 1, 1], atol=1e-9)
    np.testing.assert_allclose(mixed[2], [0.5, 0.5, 1])


def test_cosine_similarity_ignores_length():
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    half = 0.5**0.5
    np.testing.assert_allclose(cosine_similarity(features), [[1, 0, half], [0, 1, half], [half, half, 1]], atol=1e-6)


def test_gcn_starts_as_exactly_zero():
    gcn = LabelGcn(torch.eye(3), 4, 8, zero_init=True)
    assert (gcn(torch.randn(3, 4)) == 0).all()
    assert (LabelGcn(torch.eye(3), 4, 8, zero_init=False)(torch.randn(3, 4)) != 0).any()
