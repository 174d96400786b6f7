"""Makes a task of prompts that the untrained model always, never or sometimes solves, from the sample task `invoice`.

    scripts/studies/mixed-difficulty.py PROGRAM FOLDER [--solved N] [--hopeless N] [--undecided N] [--rows N]

Generates N training rows, samples 8 completions of each (a run at a learning rate of 0), and keeps rows by their solve
rates. Eval and test set stay. The study of `prompt_sampling` in docs/measurements/studies.md uses it."""
import argparse, json, pathlib, random, re, shutil, subprocess, tempfile

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("program")
arguments.add_argument("folder", type=pathlib.Path)
for name, count in (("solved", 36), ("hopeless", 12), ("undecided", 16), ("rows", 200)):
    arguments.add_argument(f"--{name}", type=int, default=count)
given = arguments.parse_args()
program = pathlib.Path(given.program).resolve()
shutil.copytree(pathlib.Path(__file__).resolve().parents[2] / "sample-data/invoice", given.folder)
generator = given.folder / "generator.toml"
generator.write_text(re.sub(r"^train = \d+", f"train = {given.rows}", generator.read_text(), flags=re.MULTILINE))


def call(*words):
    return subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


lab = ["cargo", "run", "--quiet", "--release", "--package", "grpo-tui-lab", "--", "prompts"]
subprocess.run([*lab, given.folder.resolve()], check=True, cwd=pathlib.Path(__file__).parent)
with tempfile.TemporaryDirectory() as work:
    # Without the sets that would be read first.
    alone, runs = pathlib.Path(work, "task"), pathlib.Path(work, "runs")
    shutil.copytree(given.folder, alone)
    toml = alone / "task.toml"
    toml.write_text(re.sub(r"^(eval|test) = .*\n", "", toml.read_text(), flags=re.MULTILINE))
    keys = ["learning_rate=0", "epochs=1", "max_steps=0", "eval_every=0", "checkpoint_every=0", "guided=false"]
    keys += ["on_collapse=continue", "stop_when_solved=false", "threads=1"]
    sets = [word for key in keys for word in ("--set", key)]
    run = json.loads(call("train", alone, "--runs", runs, "--cpu", "--json", *sets))["path"]
    rates = json.loads(call("runs", "show", run, "--prompts", "--json"))["prompts"]
kinds = {"solved": [], "hopeless": [], "undecided": []}
for prompt in rates:
    kinds[{0: "hopeless", 1: "solved"}.get(prompt["solve_rate"], "undecided")].append(prompt["prompt"])
chosen = {prompt for kind, found in kinds.items() for prompt in random.Random(0).sample(found, getattr(given, kind))}
train = given.folder / "train.jsonl"
lines = [line for line in train.read_text().splitlines(True) if json.loads(line)["id"] in chosen]
train.write_text("".join(lines))
print({kind: len(found) for kind, found in kinds.items()}, "of", given.rows, "rows; kept", len(lines))
