#!/usr/bin/env python3
"""Writes the same task twice, with credit for each leaf and for each top-level field: orders with 3 to 8 line items.

    scripts/studies/nested-task.py FOLDER

FOLDER/leaf and FOLDER/field differ only in `[score.fields] credit`. 200 training, 50 eval and 500 test orders, all
different, a third each as prose, as a table and with a cancelled item, which `expected` leaves out. With SmolLM2's
tokenizer prompts have 124 to 218 tokens, answers at most 183. Evals with FOLDER/leaf give F1 by path for both:

    for credit in leaf field; do grpo-tui sweep FOLDER/$credit --name $credit --set base_model=MODEL --set seed=0..4; done
    grpo-tui eval FOLDER/leaf --on test --model leaf=RUN@best --model field=RUN@best     # for each seed
"""
import json
import pathlib
import random
import sys

MAX_ITEMS = 8
SETS = {"train": 200, "eval": 50, "test": 500}
NAMES = "Ada Ben Cleo Dara Emil Fay Gus Hana Ivo June Kofi Lena Milo Nora Otto Pia Rosa Sven Tess Vera".split()
CITIES = "Basel Bergen Cork Dover Ghent Graz Leeds Lyon Malmo Nice Oslo Parma Porto Riga Turin Vienna".split()
ITEMS = "apron bell bowl broom candle chair clock cup fork hat jug kettle lamp mirror mug pan plate pot rug spoon stool towel tray vase".split()
COLOURS = "black blue brown green grey pink red white yellow".split()
NUMBERS = "zero one two three four five six seven eight nine".split()

chance = random.Random(67)


def line(item):
    return {"item": item, "colour": chance.choice(COLOURS), "quantity": chance.randint(1, 9), "price": chance.randint(2, 60) / 2}


def prose(entry):
    many = "" if entry["quantity"] == 1 else "s"
    each = "" if entry["quantity"] == 1 else " each"
    return f"{NUMBERS[entry['quantity']]} {entry['colour']} {entry['item']}{many} at {entry['price']:.2f}{each}"


def order(identifier, style):
    lines = [line(item) for item in chance.sample(ITEMS, chance.randint(3, MAX_ITEMS))]
    customer, city = chance.choice(NAMES), chance.choice(CITIES)
    kept = lines
    if style == "table":
        rows = "\n".join(f"{each['item']} | {each['colour']} | {each['quantity']} | {each['price']:.2f}" for each in lines)
        text = f"Order of {customer}, {city}\nitem | colour | pieces | unit price\n{rows}"
    else:
        text = f"{customer} in {city} orders " + ", ".join(map(prose, lines)) + "."
    if style == "cancelled":
        gone = chance.choice(lines)
        kept = [each for each in lines if each is not gone]
        text += f" Then {customer} cancels the {gone['item']}{'' if gone['quantity'] == 1 else 's'}."
    expected = {"customer": customer, "city": city, "lines": kept}
    return {"id": identifier, "messages": [{"role": "user", "content": text}], "expected": expected, "tags": [style]}


def schema():
    text = {"type": "string", "minLength": 1}
    item = {
        "item": {"enum": ITEMS},
        "colour": {"enum": COLOURS},
        "quantity": {"type": "integer", "minimum": 1},
        "price": {"type": "number", "exclusiveMinimum": 0},
    }
    closed = lambda members: {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    return closed({"customer": text, "city": text, "lines": {"type": "array", "items": closed(item), "minItems": 1}})


TASK = """name = "order-{credit}"
title = "Orders with 3 to 8 line items, credit by {credit}"
schema = "schema.json"
system = '''
Write the order as JSON on one line, one entry of `lines` for each item that is not cancelled:
{{"customer": "NAME", "city": "CITY", "lines": [{{"item": "ITEM", "colour": "COLOUR", "quantity": 1, "price": 1.5}}]}}'''

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

[score.fields]
credit = "{credit}"

[[reward]]
part = "fields"
weight = 1.0

[train]
max_completion_tokens = 256
max_seq_len = 768
"""

if len(sys.argv) != 2:
    sys.exit(__doc__)
seen, sets = set(), {}
for name, count in SETS.items():
    rows = sets[name] = []
    while len(rows) < count:
        row = order(f"{name}-{len(rows) + 1:03}", ("prose", "table", "cancelled")[len(rows) % 3])
        if row["messages"][0]["content"] not in seen:
            seen.add(row["messages"][0]["content"])
            rows.append(row)
for credit in ("leaf", "field"):
    folder = pathlib.Path(sys.argv[1], credit)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.toml").write_text(TASK.format(credit=credit))
    (folder / "schema.json").write_text(json.dumps(schema(), indent=1) + "\n")
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
