#!/usr/bin/env python3
"""Reference numbers for crates/core/src/statistics/calibration.rs: Brier scores by scikit-learn, calibration errors from
its calibration curve, temperatures by scipy's minimiser; and how often the interval of the calibration error covers.

    python3 scripts/golden/calibration.py            (prints the rows of the table of the test there)
    python3 scripts/golden/calibration.py coverage   (minutes)

Needs numpy, scikit-learn and scipy; no network. The same versions print the same numbers.
"""

import sys

import numpy as np
from scipy import optimize, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

BINS = 10


def ece(confidence, right):
    share, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    # The curve leaves empty bins out, as np.histogram's counts do not; its bins hold their upper end.
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence), minlength=BINS)
    counts = counts[counts > 0]
    return float(np.sum(counts * np.abs(share - mean)) / len(right))


def temperature(confidence, right):
    bounded = np.clip(confidence, 1e-6, 1 - 1e-6)
    logit = np.log(bounded / (1 - bounded))

    def loss(log_temperature):
        scaled = logit / np.exp(log_temperature)
        return float(np.sum(np.logaddexp(0, np.where(right == 1, -scaled, scaled))))

    found = optimize.minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def golden():
    rng = np.random.default_rng(67)
    for n, slope in [(5, 1.0), (40, 0.5), (200, 2.0), (30, 0.2)]:
        # Three decimals, none on a border of two bins.
        confidence = np.round(rng.beta(2, 1, n), 3)
        confidence = np.where(np.isclose(confidence * 10, np.round(confidence * 10)), confidence + 0.001, confidence)
        confidence = np.clip(confidence, 0.001, 0.999)
        logit = np.log(confidence / (1 - confidence))
        right = (rng.random(n) < 1 / (1 + np.exp(-slope * logit))).astype(int)
        right[:2] = [0, 1]
        text = "".join(map(str, right))
        row = [ece(confidence, right), float(brier_score_loss(right, confidence)), temperature(confidence, right)]
        print(f'        (&{[float(c) for c in confidence]}, "{text}", {row}),')


def wilson(right, n):
    z = stats.norm.ppf(0.975)
    p = right / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def gaps(confidence, right):
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return np.array([(bins == b) * (confidence - right) for b in range(BINS)]).T


def interval(confidence, right, rng):
    per = gaps(confidence, right)
    n = len(right)
    estimate = np.abs(per.sum(0)).sum() / n
    drawn = rng.integers(0, n, (1000, n))
    weights = np.array([np.bincount(row, minlength=n) for row in drawn])
    again = np.abs(weights @ per).sum(1) / n
    low, high = 2 * estimate - np.quantile(again, 0.975), 2 * estimate - np.quantile(again, 0.025)
    # Outcomes as the confidences say: an error that these have, too, may be none.
    null = np.quantile(np.abs((confidence - (rng.random((1000, n)) < confidence)) @ (per != 0)).sum(1) / n, 0.975)
    low = 0 if estimate <= null else low
    farthest = max(abs(confidence.mean() - end) for end in wilson(right.sum(), n))
    return np.clip(low, 0, estimate), np.clip(max(high, farthest), estimate, 1)


def coverage():
    rng = np.random.default_rng(7)
    for n in [50, 500]:
        for name, shape, slope in [("calibrated", (2, 1), 1.0), ("too sure", (4, 1), 0.5), ("nearly all right", (200, 1), 1.0)]:
            # The true error, of very many forecasts.
            many = rng.beta(*shape, 2_000_000)
            chance = 1 / (1 + np.exp(-slope * np.log(many / (1 - many))))
            true = np.abs(gaps(many, chance).sum(0)).sum() / len(many)
            hits = 0
            for _ in range(400):
                confidence = np.clip(rng.beta(*shape, n), 1e-9, 1 - 1e-9)
                p = 1 / (1 + np.exp(-slope * np.log(confidence / (1 - confidence))))
                low, high = interval(confidence, (rng.random(n) < p).astype(float), rng)
                hits += low <= true <= high
            print(f"n = {n}, {name}: true {true:.4f}, covered {hits / 400:.1%}", flush=True)


if __name__ == "__main__":
    coverage() if sys.argv[1:] == ["coverage"] else golden()
