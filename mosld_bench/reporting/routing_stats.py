"""Statistics of routers: how tokens are spread over the experts of a module, and what that follows.

Of a module with N experts, on the tokens of T tasks, let c[t, e] be what expert e got of task t: its picks, or the sum
of its gates (the gate mass). Tasks weigh the same, however many tokens they have.

    load         l[t, e] = c[t, e] / tokens of t: the share of tokens that picked the expert, or its mean gate
    picked       K = mean over t of Σ_e picks[t, e] / tokens of t, the experts that a token picks
    share        s[t, e] = c[t, e] / Σ_e c[t, e],  s[e] = mean over t of s[t, e]
    utilisation  u[e] = s[e] / (1 / N), the load over the even load
    dead         an expert with u[e] < 0.01
    entropy      H / log N of the router's probabilities, H / log K of the gates after the top-K, H the mean over tokens
    information  I(expert; task) = 1/T Σ_t Σ_e s[t, e] log2(s[t, e] / s[e]) bits
                 ≤ min(log2(N / K), log2 T) of picks, since the K experts of a token are different ones,
                 and ≤ min(log2 N, log2 T) of mass
    shift        ½ Σ_e |s_in[e] - s_out[e]|, the total variation distance between in-domain and out-of-domain tasks
    agreement    max over matchings π of Σ_e |tokens with e in one run and π(e) in the other| / picks of a run

Load, utilisation, the largest share, and assignment and gate mass apart are what trainers of mixtures report (NVIDIA
NeMo AutoModel). Arrays are float64 with the experts last; a module that has fewer experts than another has zeros behind
its own. What is not defined, such as shares of nothing, is NaN.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from mosld_bench.reporting.stats import Floats, Integers

DEAD_BELOW = 0.01  # of the even load
COLLAPSED_ABOVE = 0.95  # of the picks, or of the gate mass, that one expert takes
COLLAPSED_DEAD = 0.5  # of the experts that are dead

#: The rule of `collapsed` in words.
COLLAPSE_RULE = (
    f"one expert takes more than {100 * COLLAPSED_ABOVE:g} % of the picks (where a token picks several, of the gate "
    "mass), or half of the experts or more are dead"
)
_PERMUTATION_SEED = 0  # of the tokens that tell the agreement by chance


def load(counts: Floats, tokens: Floats) -> Floats:
    """Picks or gate mass a token: counts (..., modules, N) over tokens (..., modules)."""
    return _quotient(counts, tokens[..., None])


def picked(picks: Floats, tokens: Floats) -> Floats:
    """K, by module: the experts that a token picks; picks (tasks, modules, N), tokens (tasks, modules)."""
    found: Floats = _quotient(picks.sum(axis=-1), tokens).mean(axis=0)  # of whole numbers: one pick each is 1 exactly
    return found


def shares(counts: Floats) -> Floats:
    """Counts as shares of their sum over the experts, the last axis."""
    return _quotient(counts, counts.sum(axis=-1, keepdims=True))


def utilisation(share: Floats, experts: Floats) -> Floats:
    """Shares (..., modules, N) over the even share 1 / N; NaN behind the ``experts`` (modules) of a module."""
    present = np.arange(share.shape[-1]) < experts[:, None]
    return np.where(present, share * experts[:, None], np.nan)


def dead(share: Floats, experts: Floats) -> Integers:
    """How many experts of a module are dead: shares (modules, N), experts (modules)."""
    return np.asarray((utilisation(share, experts) < DEAD_BELOW).sum(axis=-1), np.int64)


def collapsed(largest: Floats, dead_experts: Integers, experts: Floats) -> np.ndarray:
    """Whether a module has collapsed, as `COLLAPSE_RULE` says.

    ``largest`` is to be the largest share of the picks where a token picks one expert, and of the gate mass where it
    picks K: of the picks, one expert can then have no more than 1 / K.
    """
    return np.asarray((largest > COLLAPSED_ABOVE) | (dead_experts >= COLLAPSED_DEAD * experts))


def entropy_share(sums: Floats, tokens: Floats, choices: Floats) -> Floats:
    """Entropies in nats, summed over tokens (tasks, modules), as a share of the most there is; the mean over tasks.

    The most is log ``choices`` (modules); NaN where there is one choice alone.
    """
    most: Floats = np.log(np.where(choices > 1, choices, np.nan))
    return _quotient(_quotient(sums, tokens).mean(axis=0), most)


def information(share: Floats) -> Floats:
    """I(expert; task) in bits, of shares (tasks, modules, N); NaN for a single task."""
    if len(share) < 2:
        return np.full(share.shape[1:-1], np.nan)
    ratio = _quotient(share, np.broadcast_to(share.mean(axis=0), share.shape))
    terms = share * np.log2(ratio, where=ratio > 0, out=np.zeros_like(share))
    return np.where(np.isnan(share).any(axis=(0, -1)), np.nan, np.maximum(terms.sum(axis=-1).mean(axis=0), 0.0))


def most_information(experts: Floats, picks: Floats, tasks: int) -> Floats:
    """The most that `information` can be, in bits: experts and picks a token (modules; 1 for shares of mass)."""
    return np.minimum(np.log2(experts / np.maximum(picks, 1.0)), np.log2(tasks))


def shift(inside: Floats, outside: Floats) -> Floats:
    """Total variation distance between the mean shares of two groups of tasks (tasks, modules, N); NaN without one."""
    if not len(inside) or not len(outside):
        return np.full(inside.shape[1:-1], np.nan)
    distance: Floats = 0.5 * np.abs(inside.mean(axis=0) - outside.mean(axis=0)).sum(axis=-1)
    return distance


def agreement(ours: np.ndarray, theirs: np.ndarray) -> Floats:
    """The share of picks that two runs have in common, by module, under the best matching of their experts.

    Picks (modules, N, tokens) are 0 or 1. Experts of two runs have no common names, so they are matched one to one,
    such that the most picks agree (the assignment problem).
    """
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)  # whose sums are exact below 2 ** 24
    overlap = np.matmul(ours, theirs.swapaxes(-1, -2))
    both = 0.5 * sum(runs.sum(axis=-1).sum(axis=-1, dtype=np.float64) for runs in (ours, theirs))
    matched = [table[linear_sum_assignment(table, maximize=True)].sum(dtype=np.float64) for table in overlap]
    return _quotient(np.array(matched), both)


def chance_agreement(ours: np.ndarray, theirs: np.ndarray) -> Floats:
    """`agreement` where the tokens of one run are permuted, the same way in every module.

    It has the loads of both runs, and what a matching that is chosen for its agreement finds in noise.
    """
    order = np.random.default_rng(_PERMUTATION_SEED).permutation(theirs.shape[-1])
    return agreement(ours, theirs[..., order])


def _quotient(above: Floats, below: Floats) -> Floats:
    """The quotient in float64; NaN where nothing is below."""
    below = np.broadcast_to(below, above.shape)
    found: Floats = np.divide(above, below, where=below != 0, out=np.full(above.shape, np.nan))
    return found
