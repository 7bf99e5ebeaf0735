"""The test rows that a candidate and a champion are compared on, and means of both on the same draws of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capnet.evaluation.bootstrap import draw_weights, draws_at_once
from capnet.evaluation.metrics import Bools, Floats, Rankings
from capnet.promotion.policy import Policy


@dataclass(frozen=True)
class ComparedRows:
    """Test rows that both have scores for: labels and known bool [image, class], units [image] drawn together, by
    class bucket and critical.
    """

    labels: Bools
    known: Bools
    units: NDArray[np.int64]
    names: Sequence[str]
    buckets: Sequence[str]
    critical: Bools
    # [class], the champion's where it is another one: settings of a candidate must not choose what it is asked
    former_tail: Bools | None = None


def draws_of(rows: ComparedRows, rankings: Sequence[Rankings], policy: Policy) -> Iterator[NDArray[np.float32]]:
    """How often each row is in each draw of the policy, float32 [image, draw], in blocks for the memory of rankings."""
    return draw_weights(rows.units, policy.draws, draws_at_once(rows.labels, rankings), policy.seed)


def paired(
    rows: ComparedRows,
    rankings: Sequence[Rankings],
    policy: Policy,
    means: Callable[[Floats], Sequence[Mapping[str, Floats]]],
) -> dict[str, tuple[float, float, Floats]]:
    """Means of two models on all rows, and their difference on the same draws.

    Args:
        rows, policy: the draws are of these.
        rankings: that ``means`` needs memory for.
        means: weights [image, draw] -> the candidate's means [draw] by name, and the champion's.

    Returns:
        By name the candidate's, the champion's, and the difference [draw].
    """
    ours, theirs = means(np.ones((len(rows.labels), 1)))
    drawn: dict[str, list[Floats]] = {name: [] for name in ours}
    for weights in draws_of(rows, rankings, policy):
        our_draws, their_draws = means(weights)
        for name, differences in drawn.items():
            differences.append(our_draws[name] - their_draws[name])
    return {name: (float(ours[name][0]), float(theirs[name][0]), np.concatenate(drawn[name])) for name in ours}
