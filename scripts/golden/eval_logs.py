#!/usr/bin/env python3
"""Verdicts on the logs in tests/eval_logs by scipy and statsmodels, for tests/command_line/eval_import.rs.

    python3 scripts/golden/eval_logs.py      (needs scipy, statsmodels, zipfile-zstd: written with 1.17, 0.15 and 0.0.4)

One sample a prompt: scipy's exact binomial test of the prompts that change. Several: the mean difference of each
prompt, by an exact test of sign changes of whole prompts and by least squares with cluster-robust errors; and the share of
right answers with Wilson's interval by the cluster-robust variance.
"""

import collections
import json
import pathlib
import zipfile

import numpy as np
import statsmodels.api as sm
import zipfile_zstd  # noqa: F401 (inspect compresses by zstd)
from intervals import wilson_by_prompt
from scipy import stats

LOGS = pathlib.Path(__file__).parents[2] / "tests" / "eval_logs"


def inspect(name, score):
    with zipfile.ZipFile(LOGS / name) as log:
        samples = [json.loads(log.read(file)) for file in log.namelist() if file.startswith("samples/")]
    return {(sample["id"], sample["epoch"]): sample["scores"][score]["value"] == "C" for sample in samples}


def lm_eval(model, chosen):
    [file] = (LOGS / f"own__{model}").glob("samples_sums_*")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {(line["doc_id"], 0): line["exact_match"] == 1 for line in lines if line["filter"] == chosen}


def promptfoo(column, score):
    results = json.loads((LOGS / "promptfoo.json").read_text())["results"]["results"]
    found, seen = {}, collections.Counter()
    for result in results:
        if result["promptIdx"] == column and result["failureReason"] != 2:
            prompt = result["vars"]["n"]
            found[prompt, seen[prompt]] = result["success"] if score == "pass" else result["namedScores"][score] == 1
            seen[prompt] += 1
    return found


def compare(name, before, after):
    pairs = sorted(set(before) & set(after))
    by_prompt = collections.defaultdict(list)
    for pair in pairs:
        by_prompt[pair[0]].append(int(after[pair]) - int(before[pair]))
    means = np.array([np.mean(changes) for changes in by_prompt.values()])
    print(f"{name}: {len(pairs)} pairs of {len(means)} prompts, {means.mean():+.12f}")
    if len(pairs) == len(means):
        fixed, broken = int((means > 0).sum()), int((means < 0).sum())
        p = stats.binomtest(min(fixed, broken), fixed + broken).pvalue if fixed + broken else 1.0
        print(f"  fixed {fixed}, broken {broken}, p {float(p)!r}")
        return
    signs = stats.permutation_test((means,), np.mean, permutation_type="samples", n_resamples=100_000)
    changes = np.concatenate(list(by_prompt.values()))
    groups = np.repeat(np.arange(len(means)), [len(changes) for changes in by_prompt.values()])
    fit = sm.OLS(changes, np.ones(len(changes))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    print(f"  p by signs of prompts {float(signs.pvalue):.4f}, by clusters {float(fit.pvalues[0]):.4f}")
    for side, answers in (("before", before), ("after", after)):
        counts = collections.defaultdict(lambda: [0, 0])
        for (prompt, _), is_right in answers.items():
            counts[prompt][0] += is_right
            counts[prompt][1] += 1
        low, high = wilson_by_prompt([tuple(count) for count in counts.values()])
        print(f"  {side}: {sum(c[0] for c in counts.values())} of {sum(c[1] for c in counts.values())}, {float(low)!r}, {float(high)!r}")


for score in ("match", "includes"):
    compare(f"inspect, {score}", inspect("small.eval", score), inspect("large.eval", score))
for chosen in ("strict", "last-number"):
    compare(f"lm-eval, {chosen}", lm_eval("small", chosen), lm_eval("large", chosen))
compare("promptfoo, pass", promptfoo(0, "pass"), promptfoo(1, "pass"))
