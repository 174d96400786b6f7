#!/usr/bin/env python3
"""Writes decisions that nobody can always get right, once with pay for an honest probability and once without.

    scripts/studies/decision-task.py FOLDER
    scripts/studies/decision-task.py EVAL_FOLDER...     tables of evals on the test set: how sure valid answers were, and how often right

Whether a payment is fraud depends on its country by chance: 5, 30, 70 or 95 of 100. The best answers are right in
82.5% and say 0.7 or 0.95, a Brier score of 0.129; 0.5 always has 0.25. FOLDER/honest and FOLDER/plain differ only in
the weight of the part `brier`; `sure` in the expected answers, which show the form, is drawn at random. The study:

    scripts/studies/decision-task.py decision
    one() { GRPO_TUI_SLOTS=slots-$1-$2 grpo-tui train decision/$1 --model MODEL --runs runs --name $1-$2 --set seed=$2 --set method=sft+grpo --set sft_steps=40 --set max_steps=200 &&
        grpo-tui eval decision/$1 --runs runs --model trained=$1-$2@last --confidence --out evals/$1-$2; }
    for seed in 0 1 2 3 4; do for mode in honest plain; do one $mode $seed & done; wait; done
    scripts/studies/decision-task.py evals/*
"""
import json
import pathlib
import random
import sys

CHANCES = {"Norway": 0.05, "Chile": 0.3, "Kenya": 0.7, "Nepal": 0.95}
GOODS = "shoes lamps books phones seeds chairs tickets watches paint toys".split()
SETS = {"train": 200, "eval": 50, "test": 500}
LEVELS = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
TASK = """name = "decision-{name}"
title = "Fraud or fine, and how sure"
schema = "schema.json"
system = '''Is this payment fraud? Answer with JSON on one line: {{"label": "fraud", "sure": 0.7}}. `label` is "fraud" or "fine"; `sure` is the probability that your label is right, from 0.5 to 1.'''

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

[[reward]]
part = "fields"
weight = 1.0

[[reward]]
part = "brier"
stated = "sure"
of = "label"
weight = {weight}

[train]
max_completion_tokens = 48
max_seq_len = 320
"""


def write(folder):
    chance = random.Random(67)
    sets = {}
    for name, count in SETS.items():
        rows = sets[name] = []
        while len(rows) < count:
            country = chance.choice(list(CHANCES))
            text = f"{chance.randint(2, 900)} EUR for {chance.choice(GOODS)}, paid from {country}, order {chance.randint(10000, 99999)}"
            label = "fraud" if chance.random() < CHANCES[country] else "fine"
            expected = {"label": label, "sure": chance.choice(LEVELS)}
            rows.append({"id": f"{name}-{len(rows) + 1:03}", "messages": [{"role": "user", "content": text}], "expected": expected, "tags": [country]})
    schema = {"type": "object", "properties": {"label": {"enum": ["fraud", "fine"]}, "sure": {"enum": LEVELS}}, "required": ["label", "sure"], "additionalProperties": False}
    for name, weight in {"honest": 1.0, "plain": 0.0}.items():
        place = pathlib.Path(folder, name)
        place.mkdir(parents=True, exist_ok=True)
        (place / "task.toml").write_text(TASK.format(name=name, weight=weight))
        (place / "schema.json").write_text(json.dumps(schema) + "\n")
        for part, rows in sets.items():
            (place / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rates(file):
    """Of an eval's valid answers: what they say, and the probability that the model gives their label."""
    records = [json.loads(line) for line in file.open()]
    valid = [record for record in records if record["tier"] == "valid"]
    right = [record["score"]["fields"]["label"] for record in valid]
    stated = [json.loads(record["completion"])["sure"] for record in valid]
    known = [
        (leaf["confidence"], one)
        for record, one in zip(valid, right)
        for leaf in record.get("confidence", {}).get("leaves", [])
        if leaf["path"] == "/label" and leaf.get("confidence") is not None
    ]
    share = lambda values: sum(values) / len(values) if values else float("nan")
    score = lambda pairs: share([(chance - one) ** 2 for chance, one in pairs])
    errors = [abs(share([one for sure, one in zip(stated, right) if sure == level]) - level) * stated.count(level) for level in set(stated)]
    error = sum(errors) / len(stated) if stated else float("nan")
    return [len(valid) / len(records), share(right), error, score(zip(stated, right)), score(known)], list(zip(stated, right))


def table(folders):
    """One row for each task and model: means over the evals, lowest and highest."""
    found = {}
    for folder in map(pathlib.Path, folders):
        task = json.loads((folder / "eval.json").read_text())["task"]
        for file in sorted(folder.glob("evals/step-*-test-*.jsonl")):
            target = file.stem.split("-test-", 1)[1]
            found.setdefault((task, target), []).append(rates(file))
    print("| task, model | evals | valid | right | calibration error of `sure` | Brier score of `sure` | Brier score of the label's own probability |")
    print("|---|---|---|---|---|---|---|")
    for (task, target), evals in sorted(found.items()):
        # An eval without valid answers has no accuracy.
        columns = [[number for number in column if number == number] for column in zip(*(numbers for numbers, _ in evals))]
        cells = [f"{sum(column) / len(column):.3f} [{min(column):.3f}, {max(column):.3f}]" if column else "n/a" for column in columns]
        print(f"| {task}, {target} | {len(evals)} | {' | '.join(cells)} |")
    print("\n| task, model | sure | answers | right |\n|---|---|---|---|")
    for (task, target), evals in sorted(found.items()):
        answers = [answer for _, answers in evals for answer in answers]
        for level in sorted({sure for sure, _ in answers}):
            right = [one for sure, one in answers if sure == level]
            print(f"| {task}, {target} | {level} | {len(right)} | {sum(right) / len(right):.1%} |")


if len(sys.argv) < 2:
    sys.exit(__doc__)
if pathlib.Path(sys.argv[1], "eval.json").exists():
    table(sys.argv[1:])
else:
    write(sys.argv[1])
