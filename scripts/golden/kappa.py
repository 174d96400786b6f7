#!/usr/bin/env python3
"""Reference numbers for crates/core/src/statistics/agreement.rs: Cohen's kappa by scikit-learn, its 95% interval by
statsmodels, correlations by scipy.

    python3 scripts/golden/kappa.py      (prints the rows of the tables of the tests there)

Needs numpy, scikit-learn, scipy and statsmodels; no network. The same versions print the same numbers.
"""

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

rng = np.random.default_rng(41)


def ratings(n, most, noise):
    one = rng.integers(0, most + 1, n)
    return one, np.where(rng.random(n) < noise, rng.integers(0, most + 1, n), one)


def kappa(one, other, most, is_weighted):
    labels = list(range(most + 1))
    estimate = cohen_kappa_score(one, other, labels=labels, weights="quadratic" if is_weighted else None)
    table = np.zeros((most + 1, most + 1))
    np.add.at(table, (one, other), 1)
    found = cohens_kappa(table, wt="quadratic" if is_weighted else None)
    assert abs(found.kappa - estimate) < 1e-12
    return float(estimate), max(-1.0, float(found.kappa_low)), min(1.0, float(found.kappa_upp))


for n, most, noise in [(20, 1, 0.3), (60, 1, 0.5), (200, 1, 0.1), (25, 4, 0.3), (120, 4, 0.6), (30, 4, 1.0)]:
    one, other = ratings(n, most, noise)
    texts = ["".join(map(str, list(row))) for row in (one, other)]
    for is_weighted in [False, True] if most > 1 else [False]:
        print(f'        ("{texts[0]}", "{texts[1]}", {most}, {str(is_weighted).lower()}, {list(kappa(one, other, most, is_weighted))}),')
print()
for n, slope in [(4, 1.0), (20, 0.5), (50, -0.2)]:
    one = np.round(rng.normal(size=n), 3)
    other = np.round(slope * one + rng.normal(size=n), 3)
    found = stats.pearsonr(one, other)
    low, high = found.confidence_interval(0.95)
    print(f"        (&{list(map(float, one))}, &{list(map(float, other))}, {[float(found.statistic), float(low), float(high)]}),")
