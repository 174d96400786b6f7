#!/usr/bin/env python3
"""Copies the sample task `assistant` and gives its first training rows demonstrations: the calls that lead to `expected`.

    scripts/studies/assistant-demonstrations.py FOLDER COUNT

`grpo-tui task check FOLDER` replays them with the task's tools."""
import json, pathlib, re, shutil, sqlite3, sys

source = pathlib.Path(__file__).resolve().parents[2] / "sample-data/assistant"
folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
schema = (source / "invoices.sql").read_text()
STATEMENTS = {tool["function"]["name"]: tool["sql"] for tool in json.loads((source / "tools.json").read_text())}


def demonstration(row):
    database = sqlite3.connect(":memory:")
    database.executescript(schema + row["database"])
    database.row_factory = sqlite3.Row
    # The first row's vendor is the one that the request names.
    vendor = re.search(r"VALUES \(\d+, '((?:[^']|'')*)'", row["database"])[1].replace("''", "'")
    account = next((account for _, account, _ in row["expected"] if account), None)
    days = next((days for *_, days in row["expected"] if days), None)
    turns = []

    def call(name, *arguments):
        """One turn with a call for each of these arguments; returns what the last one found."""
        calls = [{"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(each)}} for index, each in enumerate(arguments)]
        turns.append({"role": "assistant", "content": None, "tool_calls": calls})
        for index, each in enumerate(arguments):
            cursor = database.execute(STATEMENTS[name], each)
            found = [dict(one) for one in cursor] if cursor.description else {"changed": cursor.rowcount}
            turns.append({"role": "tool", "tool_call_id": f"c{index}", "content": json.dumps(found)})
        return found

    def of_vendor(status, name, **more):
        numbers = sorted(one["number"] for one in call("find_invoices", {"vendor": vendor, "status": status}))
        call(name, *({"number": number, **more} for number in numbers))

    match row["tags"][1]:
        case "pay_open" | "pay_chat":
            of_vendor("open", "pay", account=account)
        case "remind_late" | "remind_chat":
            of_vendor("late", "remind", days=days)
        case "both" | "both_chat":
            of_vendor("late", "pay", account=account)
            of_vendor("open", "remind", days=days)
        case _:
            call("pay", *({"number": int(number), "account": account} for number in re.findall(r"\b\d{4}\b", row["messages"][0]["content"])))
    turns.append({"role": "assistant", "content": "Done."})
    return turns


shutil.copytree(source, folder)
lines = (source / "train.jsonl").read_text().splitlines()
rows = [json.loads(line) for line in lines]
for row in rows[:count]:
    row["demonstration"] = demonstration(row)
(folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
