#!/usr/bin/env python3
"""Makes a task of an environment of verifiers 0.4: its rows are the tasks of a taskset, its rewards those of the environment.

    python3 -m venv .venv
    .venv/bin/python -m pip install 'verifiers==0.4.*' MY-TASKSET
    .venv/bin/python scripts/verifiers-task.py my-taskset tasks/my-taskset
    grpo-tui task trust my-taskset

The task runs with the Python that runs this script. A harness that is named with --harness prepares its program with `uv`;
without the option a harness that needs none asks in the process of the environment.
"""
import argparse, collections, itertools, json, pathlib, random, shutil, sys

try:
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.utils.loaders import default_harness_id, env_config_type, load_taskset, resolve_env_config
except ImportError as error:
    sys.exit(f"{error}: run this with a Python that has verifiers, after `{sys.executable} -m pip install 'verifiers==0.4.*'`")

TOML = """name = {name}
title = {title}

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

# The numbers are the lowest and the highest reward: scores are from 0 to 1.
[agent]
run = [{python}, "agent.py", "{lowest:g}", "{highest:g}"]
service = [{python}, "verifiers_service.py"]
files = {files}
isolation = "none"
memory_mib = 0
on_failure = "no_reward"
max_requests = 64
time_limit_seconds = 300

[score]
kind = "agent"
"""


def config_of(given):
    """The environment's configuration, as verifiers reads it: `[env]` as JSON."""
    config = {"taskset": {**given.taskset_config, "id": given.taskset}}
    if given.env:
        config["id"] = given.env
    seat = {"runtime": {"type": given.runtime}}
    # An environment may have a harness of its own.
    if given.harness or default_harness_id(given.taskset) == "bash":
        seat["harness"] = {"id": given.harness or "verifiers-service"}
    roles = agent_config_fields(env_config_type(given.taskset, given.env or "")())
    return {**config, **{name: seat for name in roles}}


def row_of(task, name):
    """A row shows what the environment asks first; the environment gets `task`."""
    data = task.data
    text = data.prompt_text or data.description or data.name or "The environment opens the conversation."
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    row = {"id": f"{name}-{data.idx}", "messages": [*system, {"role": "user", "content": text}]}
    return {**row, "task": data.model_dump(mode="json", exclude_none=True)}


def rows_of(tasks, name):
    """A row for each task, copies left out. Tasks may differ in what no prompt shows: their rows show which they are."""
    rows = {}
    for task in tasks:
        content = {key: value for key, value in task.data.model_dump(mode="json").items() if key not in ("idx", "id", "name")}
        rows.setdefault(json.dumps(content, sort_keys=True), row_of(task, name))
    prompts = collections.Counter(json.dumps(row["messages"]) for row in rows.values())
    for row in rows.values():
        if prompts[json.dumps(row["messages"])] > 1:
            row["messages"][-1]["content"] += f"\n\n({row['id']})"
    return list(rows.values())


def split(rows, held_out):
    """Rows by set: `held_out` of them in eval and in test each."""
    random.Random(0).shuffle(rows)
    return {"test": rows[:held_out], "eval": rows[held_out : 2 * held_out], "train": rows[2 * held_out :]}


def make_task(given):
    """Writes the task; returns the number of rows by set."""
    if (given.out / "task.toml").exists():
        sys.exit(f"{given.out} has a task: remove it, or name another folder")
    module = pathlib.Path(given.taskset)
    own = [module] if module.suffix == ".py" else []
    if own:
        sys.path.insert(0, str(module.resolve().parent))
        given.taskset = module.stem
    config = config_of(given)
    taskset = load_taskset(resolve_env_config(config).taskset)
    name = given.out.resolve().name
    rows = rows_of(itertools.islice(taskset, given.tasks), name)
    held_out = len(rows) // 5 if given.held_out is None else given.held_out
    if held_out < 1 or len(rows) <= 2 * held_out:
        sys.exit(f"{given.taskset} has {len(rows)} tasks, too few for eval and test of {held_out} each: change --tasks or --held-out")
    given.out.mkdir(parents=True, exist_ok=True)
    sets = split(rows, held_out)
    for set_name, members in sets.items():
        (given.out / f"{set_name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in members), encoding="utf-8")
    (given.out / "environment.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    here = pathlib.Path(__file__)
    for source, name_there in [(here.with_name("verifiers_agent.py"), "agent.py"), (here.with_name("verifiers_service.py"), "verifiers_service.py"), *((module, module.name) for module in own)]:
        shutil.copyfile(source, given.out / name_there)
    lowest, highest = given.rewards
    texts = {"name": json.dumps(name), "title": json.dumps(f"{given.taskset}, an environment of verifiers"), "python": json.dumps(sys.executable)}
    texts["files"] = json.dumps(["environment.json", *(module.name for module in own)])
    (given.out / "task.toml").write_text(TOML.format(lowest=lowest, highest=highest, **texts), encoding="utf-8")
    return {set_name: len(members) for set_name, members in sets.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("taskset", help="the id of an installed taskset, or the file of one, such as sums.py")
    parser.add_argument("out", type=pathlib.Path, help="the folder of the task")
    parser.add_argument("--taskset-config", type=json.loads, default={}, metavar="JSON", help="keys of its configuration, such as '{\"game\": \"Hangman-v0\"}'")
    parser.add_argument("--env", help="the id of an environment, if not the one of the taskset")
    parser.add_argument("--harness", help="the id of a harness (default: the one of the taskset, or a chat with tools)")
    parser.add_argument("--runtime", default="subprocess", help="where its program runs (default: subprocess)")
    parser.add_argument("--rewards", type=float, nargs=2, default=(0.0, 1.0), metavar=("LOWEST", "HIGHEST"), help="default: 0 1")
    parser.add_argument("--tasks", type=int, default=1000, help="read so many (default: 1000)")
    parser.add_argument("--held-out", type=int, help="tasks in eval and in test each (default: a fifth)")
    given = parser.parse_args()
    try:
        counts = make_task(given)
    except Exception as error:
        sys.exit(f"{given.taskset}: {type(error).__name__}: {error}")
    print(f"{given.out}: {', '.join(f'{count} {name}' for name, count in counts.items())} rows; `grpo-tui task trust {given.out}` allows its programs")


if __name__ == "__main__":
    main()
