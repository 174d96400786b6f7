#!/usr/bin/env python3
"""Makes a task of the multi-turn data of the Berkeley Function Calling Leaderboard, with its own classes as tools and its own
checker as judge.

    python3 -m pip install --no-deps --target bfcl-eval bfcl-eval mpmath
    scripts/bfcl-multi-turn.py bfcl-eval tasks/bfcl-multi-turn
    grpo-tui task trust bfcl-multi-turn

The rows are its test set; their categories are their tags. The task reads the first folder whenever its tools run.
"""
import argparse, json, pathlib, shutil, sys

CATEGORIES = ("base", "long_context", "miss_func", "miss_param")
# What the leaderboard's FC handlers say where functions are added.
ADDED = "I have updated some more functions you can choose from. What about now?"
TYPES = {"dict": "object", "float": "number", "tuple": "array"}
# Argument types of the ground truth that its own functions do not document: the only one, in the rows 173.
WIDER = {("close_ticket", "ticket_id"): ["integer", "string"]}
TOML = """name = "bfcl-multi-turn"
title = "BFCL, multi-turn"

[prompts]
test = "test.jsonl"

[[tool]]
run = ["python3", "tools.py", {site}]
definitions = "tools.json"
field = "bfcl"
read = [{site}]

# The leaderboard allows 20 steps a turn, and has no other limit.
[tools]
max_calls = 1000
max_turns = 160
max_result_bytes = 1048576
time_limit_seconds = 600

[score]
kind = "state"
ask = {{ of = "turn" }}
"""


def lines(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def json_schema(schema):
    """With JSON Schema's names of types."""
    if not isinstance(schema, dict):
        return schema
    mapped = {key: json_schema(value) for key, value in schema.items() if key not in ("properties", "type")}
    if "type" in schema:
        mapped["type"] = TYPES.get(schema["type"], schema["type"])
    if "properties" in schema:
        mapped["properties"] = {name: json_schema(value) for name, value in schema["properties"].items()}
    return mapped


def functions_of(data):
    """OpenAI's list of the functions of each class."""
    sys.path.insert(0, str(data.parent.parent))
    from bfcl_eval.constants.executable_backend_config import MULTI_TURN_FUNC_DOC_FILE_MAPPING as files

    tool = lambda doc: {"type": "function", "function": {"name": doc["name"], "description": doc["description"], "parameters": json_schema(doc["parameters"])}}
    found = {name: [tool(doc) for doc in lines(data / "multi_turn_func_doc" / file)] for name, file in files.items()}
    for function in (tool["function"] for tools in found.values() for tool in tools):
        for name, schema in function["parameters"]["properties"].items():
            schema["type"] = WIDER.get((function["name"], name), schema["type"])
    return found


def row_of(entry, truth, category, functions):
    shown = [tool for name in entry["involved_classes"] for tool in functions[name]]
    missed = entry.get("missed_function", {})
    is_held_out = lambda tool: any(tool["function"]["name"] in names for names in missed.values())
    turns = []
    for number, messages in enumerate(entry["question"]):
        if not messages:
            added = [tool for tool in shown if tool["function"]["name"] in missed[str(number)]]
            messages = [{"role": "user", "content": f"{json.dumps(added)}\n{ADDED}"}]
        turns.append({"messages": messages, "expected": True})
    names = [tool["function"]["name"] for tool in shown if not is_held_out(tool)]
    data = {key: entry[key] for key in ("id", "involved_classes", "initial_config")}
    return {"id": entry["id"], **turns[0], "turns": turns[1:], "tags": [category], "tools": names, "bfcl": {**data, "ground_truth": truth}}


def make_task(site, out, categories):
    """Writes the task; returns its rows."""
    data = site / "bfcl_eval/data"
    for needed in (data, site / "mpmath"):
        if not needed.is_dir():
            sys.exit(f"{needed} is not there: `pip install --no-deps --target {site} bfcl-eval mpmath` makes it")
    if (out / "task.toml").exists():
        sys.exit(f"{out} has a task: remove it, or name another folder")
    functions, rows = functions_of(data), []
    for category in categories:
        file = next(data.glob(f"BFCL_v*_multi_turn_{category}.json"), None)
        if file is None:
            sys.exit(f"{data} has no BFCL_v*_multi_turn_{category}.json: leave {category} out of --categories")
        truth = {answer["id"]: answer["ground_truth"] for answer in lines(data / "possible_answer" / file.name)}
        rows += [row_of(entry, truth[entry["id"]], category, functions) for entry in lines(file)]
    used = {name for row in rows for name in row["bfcl"]["involved_classes"]}
    tools = [tool for name in functions if name in used for tool in functions[name]]
    out.mkdir(parents=True, exist_ok=True)
    (out / "task.toml").write_text(TOML.format(site=json.dumps(str(site))))
    (out / "tools.json").write_text(json.dumps(tools, indent=1) + "\n")
    (out / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copyfile(pathlib.Path(__file__).with_name("bfcl-multi-turn-tools.py"), out / "tools.py")
    return rows


def categories(text):
    """Of an option."""
    if unknown := set(text.split(",")) - set(CATEGORIES):
        raise argparse.ArgumentTypeError(f"takes {', '.join(CATEGORIES)}, not {', '.join(sorted(unknown))}")
    return text.split(",")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=pathlib.Path, help="the folder that pip installed bfcl-eval into")
    parser.add_argument("out", type=pathlib.Path, help="the folder of the task")
    parser.add_argument("--categories", type=categories, default=list(CATEGORIES), help=f"default: {','.join(CATEGORIES)}")
    given = parser.parse_args()
    rows = make_task(given.site.resolve(), given.out, given.categories)
    print(f"{given.out}: {len(rows)} rows, {sum(1 + len(row['turns']) for row in rows)} turns; `grpo-tui task trust {given.out}` allows its tools")


if __name__ == "__main__":
    main()
