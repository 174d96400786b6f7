#!/usr/bin/env python3
"""Writes decisions that nobody can always get right, once with pay for an honest probability and once without.

    scripts/decision-task.py FOLDER
    scripts/decision-task.py EVAL_FOLDER...     how sure the valid answers of an eval of one model were, and how often right

Whether a payment is fraud depends on its country by chance: 5, 30, 70 or 95 of 100. The best answers are right in
82.5% and say 0.7 or 0.95. FOLDER/honest and FOLDER/plain differ only in the weight of the part `brier`; `sure` in
the expected answers, which show the form, is drawn at random.
"""
import json
import pathlib
import random
import sys

CHANCES = {"Norway": 0.05, "Chile": 0.3, "Kenya": 0.7, "Nepal": 0.95}
GOODS = "shoes lamps books phones seeds chairs tickets watches paint toys".split()
SETS = {"train": 200, "eval": 50, "test": 500}
LEVELS = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
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


def judge(folder):
    answers = []
    for file in pathlib.Path(folder, "evals").glob("step-*-test-*.jsonl"):
        for record in map(json.loads, file.open()):
            if record["tier"] == "valid":
                answers.append((json.loads(record["completion"])["sure"], record["score"]["fields"]["label"]))
    levels = sorted({sure for sure, _ in answers})
    error = score = 0.0
    for level in levels:
        right = [is_right for sure, is_right in answers if sure == level]
        error += abs(level * len(right) - sum(right)) / len(answers)
        score += sum((level - is_right) ** 2 for is_right in right) / len(answers)
        print(f"{folder}: sure {level}: {len(right)} answers, {sum(right) / len(right):.1%} right")
    right = sum(is_right for _, is_right in answers) / max(len(answers), 1)
    print(f"{folder}: n = {len(answers)}, right {right:.1%}, calibration error {error:.3f}, Brier score {score:.3f}")


if len(sys.argv) < 2:
    sys.exit(__doc__)
if pathlib.Path(sys.argv[1], "eval.json").exists():
    list(map(judge, sys.argv[1:]))
else:
    write(sys.argv[1])
