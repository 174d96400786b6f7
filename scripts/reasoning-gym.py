#!/usr/bin/env python3
"""Makes a task of a data set of reasoning-gym: answers are JSON, `{"answer": ..}`, judged by the data set's own `score_answer`.

    python3 -m venv .venv
    .venv/bin/python -m pip install reasoning-gym
    .venv/bin/python scripts/reasoning-gym.py word_sorting tasks/word-sorting
    grpo-tui task trust word-sorting

Where `score_answer` gives 1 to one text alone, the task is of kind `json_schema` and needs neither trust nor Python. Otherwise
it runs with the Python that runs this script. `--list` prints the names of the data sets.
"""
import argparse, difflib, inspect, json, pathlib, random, re, shutil, sys

try:
    from reasoning_gym.dataset import ProceduralDataset
    from reasoning_gym.factory import DATASETS, create_dataset
except ImportError as error:
    sys.exit(f"{error}: run this with a Python that has reasoning-gym, after `{sys.executable} -m pip install reasoning-gym`")

# A whole number has one value, however it is written: their scorers compare values.
BY_VALUE = ("chain_sum", "products")
SCHEMAS = {"a whole number": "integer", "a string": "string"}
# What evaluates an answer as Python.
EVALUATES = re.compile(r"\b(eval|exec|parse_expr|sympify)\(")
# Indices of the data set that are read for each row that is asked for, before fewer rows are written.
MAX_TRIES = 4

HEAD = """name = {name}
title = {title}
{schema}system = {system}
thinking = false

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

[score]
"""
BY_SCHEMA = """kind = "json_schema"

[[reward]]
part = "exact"
weight = 1.0
"""
# A tier has its own reward: the score is a part, asked by a process of its own.
BY_PROGRAM = """kind = "command"
command = [{python}, "scorer.py"]
files = ["dataset.json"]
{isolation}
[[reward]]
name = "gym"
kind = "command"
command = [{python}, "scorer.py", "score"]
files = ["dataset.json"]
{isolation}after = "valid"
weight = 1.0
"""
TRAIN = """
# Room for the longest answer, and for the longest prompt.
[train]
keep_best_by = "exact"
max_completion_tokens = {completion}
max_seq_len = {sequence}
"""


def encoded(value):
    """As JSON that scorer.py reads back: tuples, sets and dictionaries with other keys than strings are kept."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {str(key): encoded(item) for key, item in value.items()}
        return {"$dict": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if isinstance(value, (tuple, set, frozenset)):
        return {"$tuple" if isinstance(value, tuple) else "$set": [encoded(item) for item in value]}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "value"):
        return value.value
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def answer_of(dataset, entry):
    """The right answer as text; where the data set names none, an example that it shows and scores with 1."""
    if entry["answer"] is not None:
        return str(entry["answer"])
    for value in entry["metadata"].values():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        try:
            if dataset.score_answer(text, entry) == 1:
                return text
        except Exception:
            continue
    return None


def is_written_as_json(dataset, entry, answer):
    """Whether the answer is the text of a JSON object or list, whose spelling does not matter."""
    try:
        value = json.loads(answer)
        return isinstance(value, (dict, list)) and dataset.score_answer(json.dumps(value), entry) == 1
    except Exception:
        return False


def unique_entries(dataset, wanted):
    """The first entries with different prompts, and how many were left out."""
    entries, repeated = {}, 0
    for index in range(len(dataset)):
        if len(entries) == wanted:
            break
        entry = dataset[index]
        if entry["question"] in entries:
            repeated += 1
        else:
            entries[entry["question"]] = (index, entry)
    return list(entries.values()), repeated


def is_whole(text):
    return text is not None and re.fullmatch(r"0|-?[1-9]\d*", text) is not None


def tokens(text, letters):
    """About so many at most, with the usual tokenizers: digits and punctuation alone, words in pieces of `letters`."""
    pieces = re.findall(rf"[a-zA-Z]{{1,{letters}}}|\s+|[^a-zA-Z\s]", text)
    return sum(1 if piece.isascii() else len(piece.encode()) for piece in pieces)


def rounded(count, to):
    return -(-count // to) * to


def split(rows, sizes):
    """Rows by set; all sets are smaller by the same factor where rows are missing."""
    wanted, found = sum(sizes.values()), {}
    for name, size in sizes.items():
        share = size if len(rows) >= wanted else max(1, size * len(rows) // wanted)
        found[name] = rows[sum(map(len, found.values())) :][:share]
    return found


def make_task(given):
    """Writes the task; returns its sets and how many repeated prompts were left out."""
    if (given.out / "task.toml").exists():
        sys.exit(f"{given.out} has a task: remove it, or name another folder")
    sizes = {"train": given.size, "eval": given.eval, "test": given.test}
    config = {**given.config, "seed": given.seed, "size": MAX_TRIES * sum(sizes.values())}
    dataset = create_dataset(given.dataset, **config)
    entries, repeated = unique_entries(dataset, sum(sizes.values()))
    if len(entries) < len(sizes):
        sys.exit(f"{given.dataset} has {len(entries)} different prompts with this configuration, too few for three sets: change --config")
    random.Random(given.seed).shuffle(entries)
    answers = [answer_of(dataset, entry) for _, entry in entries]
    are_json = [is_written_as_json(dataset, entry, answer) for (_, entry), answer in zip(entries, answers)]
    kind = "a whole number" if all(map(is_whole, answers)) else "an object or a list" if all(are_json) else "a string"
    value_of = {"a whole number": int, "an object or a list": json.loads, "a string": str}[kind]
    is_own = type(dataset).score_answer is not ProceduralDataset.score_answer
    by_schema = None not in answers and kind in SCHEMAS and (not is_own or value_of is int and given.dataset in BY_VALUE)
    rows = []
    for (index, entry), answer in zip(entries, answers):
        row = {"id": f"{given.dataset}-{index}", "messages": [{"role": "user", "content": entry["question"]}]}
        if answer is not None:
            row["expected"] = {"answer": value_of(answer)}
        if not by_schema:
            # What a group without a right answer learns from, and SFT.
            row |= {"completion": json.dumps(row["expected"], ensure_ascii=False)} if answer is not None else {}
            row["entry"] = encoded({key: value for key, value in entry.items() if key != "question"})
        rows.append(row)
    sets = split(rows, sizes)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, members in sets.items():
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in members), encoding="utf-8")
    write_files(given, dataset, kind, by_schema, rows)
    return sets, repeated


def write_files(given, dataset, kind, by_schema, rows):
    """All but the rows."""
    form = kind if kind == "a whole number" else f"{kind} in the form that the question asks for"
    texts = {
        "name": given.out.resolve().name,
        "title": f"{given.dataset}, a data set of reasoning-gym",
        "system": f'Answer with JSON only: an object with one key, "answer", {form}.',
        "python": sys.executable,
    }
    texts = {key: json.dumps(text) for key, text in texts.items()}
    texts["schema"] = 'schema = "schema.json"\n' if by_schema else ""
    evaluates = EVALUATES.search(inspect.getsource(sys.modules[type(dataset).__module__]))
    texts["isolation"] = '# Answers are evaluated as Python.\nisolation = "strong"\n' if evaluates else ""
    longest = max((tokens(json.dumps(row.get("expected", ""), ensure_ascii=False), 2) for row in rows), default=0)
    completion = rounded(longest + 32, 64)
    prompt = max(tokens(row["messages"][0]["content"], 4) for row in rows) + 64
    room = {"completion": completion, "sequence": max(2048, rounded(prompt + completion, 256))}
    toml = (HEAD + (BY_SCHEMA if by_schema else BY_PROGRAM)).format(**texts) + TRAIN.format(**room)
    (given.out / "task.toml").write_text(toml, encoding="utf-8")
    if by_schema:
        schema = {"type": "object", "properties": {"answer": {"type": SCHEMAS[kind]}}, "required": ["answer"], "additionalProperties": False}
        (given.out / "schema.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
        return
    made = {"name": given.dataset, "config": {**given.config, "seed": given.seed, "size": 1}, "answer": kind}
    (given.out / "dataset.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(pathlib.Path(__file__).with_name("reasoning_gym_scorer.py"), given.out / "scorer.py")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", help="the name of a data set")
    parser.add_argument("out", nargs="?", type=pathlib.Path, help="the folder of the task")
    parser.add_argument("--size", type=int, default=200, help="rows to train on (default: 200)")
    parser.add_argument("--eval", type=int, default=50, help="rows of the eval set (default: 50)")
    parser.add_argument("--test", type=int, default=500, help="rows of the test set (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="keys of its configuration, such as '{\"min_words\": 3}'")
    parser.add_argument("--list", action="store_true", help="print the names of the data sets")
    given = parser.parse_args()
    names = sorted(DATASETS)
    if given.list:
        print(*names, sep="\n")
        return
    if given.out is None:
        parser.error("name a data set and a folder")
    if min(given.size, given.eval, given.test) < 1:
        parser.error("--size, --eval and --test must be at least 1")
    if given.dataset == "composite":
        sys.exit("composite mixes other data sets: make a task of each, and train them together, `grpo-tui train TASK TASK --mix 2:1`")
    if given.dataset not in names:
        similar = difflib.get_close_matches(given.dataset, names, 1)
        sys.exit(f"reasoning-gym has no data set {given.dataset!r}" + (f": a similar name is {similar[0]!r}" if similar else ": --list prints their names"))
    try:
        sets, repeated = make_task(given)
    except Exception as error:
        sys.exit(f"{given.dataset}: {type(error).__name__}: {error}")
    counts = ", ".join(f"{len(members)} {name}" for name, members in sets.items())
    trust = f"; `grpo-tui task trust {given.out}` allows its program" if (given.out / "scorer.py").exists() else ""
    print(f"{given.out}: {counts} rows; {repeated} repeated prompts left out{trust}")


if __name__ == "__main__":
    main()
