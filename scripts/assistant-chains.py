#!/usr/bin/env python3
"""Writes the sample task `assistant` with requests that need as many calls as asked for, to see how far a model that was trained on 2 to 8 goes.

    scripts/assistant-chains.py FOLDER [--calls 5,10,20,50] [--rows 100]

The test set is 100 requests of each length, tagged `calls-N`. `train` and `eval` are those of `assistant`:

    grpo-tui train assistant --model MODEL --gpu 0
    grpo-tui eval FOLDER --model RUN --on test
"""
import argparse, json, pathlib, random, shutil, tomllib

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--calls", default="5,10,20,50", help="numbers of calls, of which the first or two find the invoices")
parser.add_argument("--rows", type=int, default=100, help="of each length")
given = parser.parse_args()
lengths = [int(length) for length in given.calls.split(",")]
if min(lengths) < 4:
    parser.error("--calls: at least 4")

SAMPLE = pathlib.Path(__file__).resolve().parent.parent / "sample-data/assistant"
random.seed(0)
POOLS = tomllib.loads((SAMPLE / "generator.toml").read_text())["pools"]
PAY = ["Pay the open invoices of {vendor} from the {account} account.", "> {vendor} // {account} // pay open"]
REMIND = ["Remind me of the late invoices of {vendor} in {days} days.", "> {vendor} late ones, ping me, {days} days"]
BOTH = [
    "Pay the late invoices of {vendor} from the {account} account and remind me of the open ones in {days} days.",
    "> {vendor} // {account} // pay late, then {days} days + ping open",
]


def row(length, place):
    """A call finds invoices, each of the others pays one or makes a reminder of one."""
    stem = lambda: "".join(random.choice(POOLS[part]) for part in ("onset", "middle", "ending"))
    vendor, other = (f"{stem()} {suffix}" for suffix in random.sample(POOLS["suffix"], 2))
    account, days = random.choice(["main", "travel", "garden"]), random.randint(2, 90)
    kind = random.choice(["pay", "remind", "both"])
    opens, lates = ((length - 2) // 2, length - 2 - (length - 2) // 2) if kind == "both" else ((length - 1, 3) if kind == "pay" else (3, length - 1))
    open_ones, late_ones, others = (sorted(random.sample(range(first, first + 3000), count)) for first, count in [(1000, opens), (4000, lates), (7000, 4)])
    invoices = [(number, vendor, "open") for number in open_ones] + [(number, vendor, "late") for number in late_ones]
    invoices += [(number, vendor, "paid") for number in others[:2]] + [(others[2], other, "open"), (others[3], other, "late")]
    values = ", ".join(f"({number}, '{name}', '{status}', NULL)" for number, name, status in invoices)
    paid, reminded = {"pay": (open_ones, []), "remind": ([], late_ones), "both": (late_ones, open_ones)}[kind]
    expected = sorted([[number, account, None] for number in paid] + [[number, None, days] for number in reminded])
    texts = {"pay": PAY, "remind": REMIND, "both": BOTH}[kind]
    request = random.choice(texts).format(vendor=vendor, account=account, days=days)
    return {
        "id": f"calls-{length}-{place:03}",
        "messages": [{"role": "user", "content": request}],
        "expected": expected,
        "tags": [f"calls-{length}", kind],
        "database": f"INSERT OR IGNORE INTO invoice VALUES {values};",
    }


given.folder.mkdir(parents=True)
for name in ["invoices.sql", "tools.json", "train.jsonl", "eval.jsonl"]:
    shutil.copyfile(SAMPLE / name, given.folder / name)
rows = [row(length, place) for length in lengths for place in range(1, given.rows + 1)]
(given.folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
task, most = (SAMPLE / "task.toml").read_text(), max(lengths) + 4
# A call and its result take some 60 tokens.
room, only = f"max_seq_len = {1024 + 128 * most}\n", "\n# Defaults that apply only"
for old, new in [
    ('name = "assistant"', f'name = "{given.folder.name}"'),
    ("max_calls = 12", f"max_calls = {most}"),
    ("max_turns = 13", f"max_turns = {most + 1}"),
    ("max_seq_len = 1024\n", room),
    (only, f"{room}{only}"),
]:
    assert old in task, f"task.toml of assistant has no {old!r}"
    task = task.replace(old, new)
(given.folder / "task.toml").write_text(task)
