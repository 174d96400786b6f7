#!/usr/bin/env python3
"""Reference numbers for crates/core/src/statistics, by scipy and statsmodels.

    python3 scripts/golden/intervals.py                 (prints the tables of the tests in crates/core/src/statistics/golden.rs)
    python3 scripts/golden/intervals.py --coverage      (how often the intervals hold the truth, by simulation; minutes)

Needs numpy, scipy and statsmodels (written with 2.4, 1.17 and 0.15); no network. The same versions print the same numbers.
"""

import math
import sys
from fractions import Fraction

import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def bonett_price(fixed, broken, pairs):
    """The adjusted Wald interval of Bonett and Price (2012): Laplace's estimates, one prompt added to either side."""
    gains, losses, n = (fixed + 1) / (pairs + 2), (broken + 1) / (pairs + 2), pairs + 2
    half = stats.norm.ppf(0.975) * math.sqrt((gains + losses - (gains - losses) ** 2) / n)
    return max(-1.0, gains - losses - half), min(1.0, gains - losses + half)


def paired_counts(fixed, broken, pairs):
    p = mcnemar([[pairs - fixed - broken, fixed], [broken, 0]], exact=True).pvalue if fixed + broken else 1.0
    return (fixed - broken) / pairs, *bonett_price(fixed, broken, pairs), float(p)


def paired_means(differences, least_change):
    """By the number of changed prompts that have the same variance when all change equally far (Kish); the two added ones change as far."""
    differences = np.array(differences, float)
    sizes = np.abs(differences)
    if not sizes.any():
        return 0.0, *bonett_price(0, 0, len(sizes)), 1.0
    changed, change = sizes.sum() ** 2 / (sizes**2).sum(), (sizes**2).sum() / sizes.sum()
    fixed = changed * differences[differences > 0].sum() / sizes.sum()
    fewer = min(fixed, changed - fixed)
    p = min(1.0, 2 * stats.beta.cdf(0.5, changed - fewer, fewer + 1))
    added = max(change, least_change)
    more = np.concatenate([differences, [added, -added]])
    low, high = stats.norm.interval(0.95, more.mean(), more.std() / math.sqrt(len(more)))
    return differences.mean(), float(max(-1, low)), float(min(1, high)), float(p)


def wilson(rate, n, z):
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (0.0 if rate == 0 else centre - half), (1.0 if rate == 1 else centre + half)


def wilson_by_prompt(prompts):
    answers = np.concatenate([[1.0] * found + [0.0] * (of - found) for found, of in prompts])
    groups = np.repeat(np.arange(len(prompts)), [of for _, of in prompts])
    rate, n = answers.mean(), len(answers)
    z = stats.t.ppf(0.975, len(prompts) - 1)
    if rate in (0.0, 1.0):
        return wilson(rate, len(prompts), z)
    fit = sm.OLS(answers, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return wilson(rate, min(n, rate * (1 - rate) / max(fit.cov_params()[0, 0], 1e-300)), z)


def power(n, fixed, broken):
    changed = fixed + broken
    total = 0.0
    for count in range(n + 1):
        fewer = np.arange(count // 2 + 1)
        significant = fewer[(2 * stats.binom.cdf(fewer, count, 0.5) < 0.05) & (2 * fewer < count)]
        if len(significant):
            most = significant[-1]
            tails = stats.binom.cdf(most, count, fixed / changed) + stats.binom.cdf(most, count, broken / changed)
            total += stats.binom.pmf(count, n, changed) * tails
    return float(total)


def required(fixed, broken):
    """The n that the chance of 80 % is crossed at, by halving: as the number of changed prompts is random, the chance rises almost everywhere."""
    low, high = 1, 2
    while power(high, fixed, broken) < 0.8:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, fixed, broken) >= 0.8 else (middle, high)
    return high


def pass_at(j, n, passed):
    """The paper's formula (Chen et al. 2021) in whole numbers; its code, 1 - prod(1 - j / arange(n - passed + 1, n + 1)), agrees."""
    return float(1 - Fraction(math.comb(n - passed, j), math.comb(n, j)))


def mean_by_prompt(values, samples):
    """Wilson's interval with the effective number of completions and Student's t of the number of prompts."""
    m, rate = len(values), float(np.mean(values))
    variance = float(np.var(values, ddof=1)) / m
    effective = m if rate in (0, 1) else min(rate * (1 - rate) / variance, m * samples)
    return rate, *wilson(rate, effective, stats.t.ppf(0.975, m - 1))


def sample_coverage():
    """How often 95% intervals of pass@4 of 8 samples hold the truth, where the prompts' chances are of Beta(a, b)."""
    random, tries = np.random.default_rng(0), 400
    print("a, b, prompts: held by mean_by_prompt, by the percentile bootstrap")
    for a, b in [(0.5, 0.5), (2, 2), (8, 1)]:
        truth = 1 - math.exp(math.lgamma(b + 4) + math.lgamma(a + b) - math.lgamma(b) - math.lgamma(a + b + 4))
        for prompts in (20, 50, 100, 500):
            held = np.zeros(2)
            for _ in range(tries):
                passed = random.binomial(8, random.beta(a, b, prompts))
                values = np.array([pass_at(4, 8, one) for one in range(9)])[passed]
                means = values[random.integers(prompts, size=(1000, prompts))].mean(axis=1)
                for at, (low, high) in enumerate([mean_by_prompt(values, 8)[1:], np.percentile(means, [2.5, 97.5])]):
                    held[at] += low - 1e-12 <= truth <= high + 1e-12
            print(f"  {a} {b} {prompts:4}: {held[0] / tries:.3f} {held[1] / tries:.3f}")


def paired_sample_coverage():
    """How often 95% intervals of a difference of pass@4 of 8 samples hold the truth; `mended`: share of failures that the second model does not make."""
    random, tries = np.random.default_rng(0), 400
    of_count = np.array([pass_at(4, 8, one) for one in range(9)])
    print("a, b, mended, prompts: held by paired_means, by the percentile bootstrap over prompts; mean widths")
    for a, b, mended in [(0.5, 0.5, 0.0), (0.5, 0.5, 0.2), (2, 2, 0.1), (8, 1, 0.0), (8, 1, 0.5), (0.2, 2, 0.2)]:
        truth = math.exp(math.lgamma(b + 4) + math.lgamma(a + b) - math.lgamma(b) - math.lgamma(a + b + 4)) * (1 - (1 - mended) ** 4)
        for prompts in (20, 50, 100, 500):
            held, width = np.zeros(2), np.zeros(2)
            for _ in range(tries):
                chances = random.beta(a, b, prompts)
                after = random.binomial(8, chances + (1 - chances) * mended)
                values = of_count[after] - of_count[random.binomial(8, chances)]
                ends = paired_means(values, 1)[1:3]
                means = values[random.integers(prompts, size=(1000, prompts))].mean(axis=1)
                for at, (low, high) in enumerate([ends, np.percentile(means, [2.5, 97.5])]):
                    held[at] += low - 1e-12 <= truth <= high + 1e-12
                    width[at] += high - low
            print(f"  {a} {b} {mended} {prompts:4}: {held[0] / tries:.3f} {held[1] / tries:.3f}; {width[0] / tries:.3f} {width[1] / tries:.3f}", flush=True)


def tables():
    show = lambda numbers: ", ".join(repr(float(number)) for number in numbers)
    print("// fixed, broken, pairs; difference, low, high, p")
    for counts in [(0, 0, 500), (5, 0, 500), (0, 5, 500), (6, 0, 500), (3, 3, 500), (1, 0, 8), (40, 1, 100), (6, 2, 50), (203, 0, 500), (96, 1, 100),
                   (64, 5, 100), (1, 7, 21), (100, 0, 100), (310, 240, 2000)]:
        print(f"    ({counts}, [{show(paired_counts(*counts))}]),")
    passed = [(0, 1), (1, 1), (2, 5), (8, 8), (3, 2), (0, 0), (4, 7), (1, 3), (8, 7), (0, 2)]
    pass_differences = [pass_at(4, 8, after) - pass_at(4, 8, before) for before, after in passed]
    print("// differences, least change; difference, low, high, p; the last of pass@4 of 8 samples")
    for differences, least in [([0.25, 0.5, -0.25, 0, 0, 0, 0.75, 0.25, 0, 0.5], 0.25), ([1, 1, 0, 0, -1, 0, 0, 1, 0, 0], 1), ([0.5] * 6 + [-0.125] * 2 + [0] * 4, 0.125),
                               (pass_differences, 1)]:
        print(f"    (&{[float(one) for one in differences]}, {float(least)}, [{show(paired_means(differences, least))}]),")
    print("// found and all, a pair a prompt; low, high")
    for prompts in [[(4, 4), (0, 4), (2, 4), (4, 4), (1, 4), (3, 4), (4, 4), (0, 4)], [(3, 3), (2, 2), (1, 4), (0, 2), (5, 5), (1, 1)], [(4, 4)] * 6,
                    [(0, 16)] * 5, [(2, 4)] * 7]:
        print(f"    (&{prompts}, [{show(wilson_by_prompt(prompts))}]),")
    print("// successes, n; low, high")
    for successes, n in [(31, 50), (0, 10), (10, 10), (1, 10), (497, 500)]:
        print(f"    ({successes}, {n}, [{show(proportion_confint(successes, n, method='wilson'))}]),")
    print("// fixed, broken, n; power")
    for fixed, broken, n in [(0.25, 0.05, 57), (0.12, 0.04, 50), (0.01, 0.0, 500), (0.02, 0.01, 800), (0.9, 0.1, 20)]:
        print(f"    ({fixed}, {broken}, {n}, {power(n, fixed, broken)!r}),")
    print("// fixed, broken; required n")
    for fixed, broken in [(0.25, 0.05), (0.12, 0.04), (0.01, 0.0), (0.02, 0.005)]:
        print(f"    ({fixed}, {broken}, {required(fixed, broken)}),")
    print("// j, n, passed; pass@j")
    for j, n, passed in [(1, 1, 0), (2, 4, 1), (8, 8, 0), (1, 8, 3), (4, 8, 3), (2, 8, 8), (10, 200, 7), (100, 200, 1), (2, 200, 199), (512, 1024, 3)]:
        print(f"    ({j}, {n}, {passed}, {pass_at(j, n, passed)!r}),")
    print("// values, samples; mean, low, high")
    eighths = [pass_at(4, 8, passed) for passed in (0, 1, 2, 3, 8, 8, 5, 0, 1, 6, 7, 8)]
    for values, samples in [([1, 0, 0.5, 1, 0.25, 0.75, 1, 0, 1, 0.5], 4), ([1] * 19 + [0.875], 8), (eighths, 8)]:
        print(f"    (&{[float(one) for one in values]}, {samples}, [{show(mean_by_prompt(values, samples))}]),")
    print("// p-values; adjusted by Holm's method")
    for p_values in [[0.01, 0.04, 0.03], [0.005, 0.011, 0.02, 0.04, 0.13], [0.03, 0.03, 0.5], [0.4, 0.9, 1.0], [1e-12, 0.049, 0.024]]:
        print(f"    (&{p_values}, &[{show(multipletests(p_values, method='holm')[1])}]),")
    print("// k, n, p; P(X <= k)")
    for k, n, p in [(0, 10, 0.3), (3, 10, 0.3), (41, 50, 0.9), (480, 1040, 0.5), (2, 2000, 0.004)]:
        print(f"    ({k}, {n}, {p}, {float(stats.binom.cdf(k, n, p))!r}),")
    print("// found, size, failures, all; p")
    for found, size, failures, all in [(12, 48, 12, 100), (9, 15, 40, 200), (50, 60, 300, 500), (7, 9, 14, 30)]:
        table = [[found, size - found], [failures - found, all - size - failures + found]]
        print(f"    ([{found}, {size}, {failures}, {all}], {float(stats.fisher_exact(table, alternative='greater').pvalue)!r}),")


def coverage():
    random = np.random.default_rng(0)
    tries = 2000
    print("one sample a prompt: prompts, fixed, broken: held, mean width")
    for n in (20, 50, 100, 500):
        for fixed, broken in [(0.0, 0.0), (0.01, 0.0), (0.02, 0.01), (0.05, 0.05), (0.1, 0.02), (0.3, 0.1), (0.6, 0.05), (0.95, 0.01)]:
            drawn, times = np.unique(random.multinomial(n, [fixed, broken, 1 - fixed - broken], size=tries), axis=0, return_counts=True)
            ends = np.array([bonett_price(f, b, n) for f, b, _ in drawn])
            held = (ends[:, 0] <= fixed - broken + 1e-12) & (fixed - broken - 1e-12 <= ends[:, 1])
            print(f"  {n:4} {fixed:5} {broken:5}: {(held * times).sum() / tries:.3f} {((ends[:, 1] - ends[:, 0]) * times).sum() / tries:.4f}")
    print("several samples a prompt: prompts, samples, Beta(a, b) chances, share of failures mended: difference held; rate held, and by plain Wilson")
    for n in (10, 30, 100):
        for samples in (4, 16):
            for a, b, mended in [(0.5, 0.5, 0.0), (2, 2, 0.1), (20, 1, 0.02), (0.2, 2, 0.2), (0.05, 0.05, 0.05)]:
                mean = a / (a + b)
                found = np.zeros(3)
                for _ in range(tries // 2):
                    chances = random.beta(a, b, n)
                    before = random.binomial(samples, chances)
                    after = random.binomial(samples, chances + (1 - chances) * mended)
                    _, low, high, _ = paired_means((after - before) / samples, 1 / samples)
                    found[0] += low <= (1 - mean) * mended <= high
                    low, high = wilson_by_prompt([(int(count), samples) for count in before])
                    found[1] += low <= mean <= high
                    low, high = wilson(before.mean() / samples, n * samples, stats.norm.ppf(0.975))
                    found[2] += low <= mean <= high
                print(f"  {n:4} {samples:3} {(a, b, mended)}: " + " ".join(f"{count / (tries // 2):.3f}" for count in found))


if __name__ == "__main__":
    (coverage(), sample_coverage(), paired_sample_coverage()) if "--coverage" in sys.argv else tables()
