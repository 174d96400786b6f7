#!/usr/bin/env python3
"""Writes a task whose rows have a schema each: the texts of `invoice`, asked for some fields under other names.

    scripts/studies/row-schema-task.py FOLDER

Each prompt shows the schema that its answer must fit. Some schemas of the test rows occur in no training row:
`grpo-tui eval` reports seen and unseen ones apart.
"""
import json
import pathlib
import random
import sys

NAMES = {
    "vendor": ("vendor", "seller", "supplier"),
    "date": ("date", "issued_on", "day"),
    "amount": ("amount", "total", "sum"),
    "currency": ("currency", "currency_code", "money"),
}
TASK = """name = "row-schemas"
title = "Invoices to JSON, a schema for each row"
schema = "schema.json"
system = "Answer with JSON on one line that fits the schema."

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

[[reward]]
part = "fields"
weight = 1.0

[train]
max_completion_tokens = 128
max_seq_len = 640
"""

if len(sys.argv) != 2:
    sys.exit(__doc__)
chance = random.Random(67)
samples = pathlib.Path(__file__).resolve().parents[2] / "sample-data/invoice"
members = json.loads((samples / "schema.json").read_text())["properties"]
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "task.toml").write_text(TASK)
(folder / "schema.json").write_text('{"type": "object"}\n')
for name, source in {"train": "train", "eval": "eval", "test": "eval-large"}.items():
    with (folder / f"{name}.jsonl").open("w") as rows:
        for line in (samples / f"{source}.jsonl").read_text().splitlines():
            row = json.loads(line)
            asked = {field: chance.choice(NAMES[field]) for field in chance.sample(list(NAMES), chance.randint(2, 4))}
            properties = {new: {key: rule for key, rule in members[old].items() if key != "description"} for old, new in asked.items()}
            schema = {"type": "object", "properties": properties, "required": list(asked.values()), "additionalProperties": False}
            text = row["messages"][-1]["content"].split("\n\n", 1)[1]
            row["messages"] = [{"role": "user", "content": f"Schema: {json.dumps(schema)}\n\n{text}"}]
            row["expected"] = {new: row["expected"][old] for old, new in asked.items()}
            rows.write(json.dumps(dict(row, schema=schema), ensure_ascii=False) + "\n")
