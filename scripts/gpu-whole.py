"""A whole run at the Qwen3-8B shape, random weights: `train` from the process's start to its end, and what each part of that time went to.

    python3 scripts/gpu-whole.py BINARY FOLDER OUT      FOLDER: the random checkpoint, made where it is missing (17 GB; /dev/shm); OUT: the figures, JSON

The driver keeps no kernels that it has compiled, as on a machine where the program never ran.
25 steps of 8 x 8 with 64 new tokens, adapters of rank 16, evals and checkpoints at the defaults, 100 test prompts before and after. The weights know
nothing, so a small KL keeps groups of equal rewards in the gradient: the update has the reference's forward too. Every second between start and end belongs
to one part: phases begin with their event, and of a step's phases the metrics say what was rollout, score and update.
"""
import glob, itertools, json, os, pathlib, shutil, subprocess, sys, tempfile, time
import random_qwen3

binary, folder, out = sys.argv[1:4]
random_qwen3.write(folder)
# Read once, so that the page cache has it, as it has for anybody's second run.
for file in glob.glob(f"{folder}/*.safetensors"):
    with open(file, "rb") as opened:
        while opened.read(1 << 26):
            pass
work = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(out).absolute().parent))
task = work / "invoice"
shutil.copytree("sample-data/invoice", task)
test = (task / "eval-large.jsonl").read_text().splitlines(keepends=True)[:100]
(task / "eval-large.jsonl").write_text("".join(test))
settings = dict(max_steps=25, prompt_groups_per_step=8, completions_per_prompt=8, max_completion_tokens=64, lora_rank=16, kl_beta=0.001)
arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
start = time.time()
done = subprocess.run([binary, "train", str(task), "--model", folder, "--gpu", "0", "--runs", str(work / "runs"), "--json", *arguments],
                      capture_output=True, text=True, env={**os.environ, "CUDA_CACHE_DISABLE": "1"})
wall = time.time() - start
if done.returncode:
    sys.exit(f"FAIL whole: {done.stderr[-3000:]}")
events = [json.loads(line) for line in open(glob.glob(f"{work}/runs/*/events.jsonl")[0])]
at = lambda event: event["t"] / 1000 - start
steps = [event["metrics"] for event in events if event["kind"] == "step"]
total = lambda name: sum(metrics[name] for metrics in steps)

marks = [("start", 0.0)]
for index, event in enumerate(events):
    if event["kind"] == "phase":
        name = event["phase"]
        if name == "eval":
            name = next(later["set"] for later in events[index:] if later["kind"] == "eval")
        marks.append((name, at(event)))
    elif event["kind"] == "end":
        marks.append(("exit", at(event)))
marks.append((None, wall))
parts = {}
for (name, begin), (_, end) in itertools.pairwise(marks):
    parts[name] = parts.get(name, 0.0) + end - begin
# An eval between two steps is decoded with the next rollout; its event says what of that time was its own.
evals = sum(event["seconds"] for event in events if event["kind"] == "eval" and event["set"] == "eval")
steps_and_evals = parts["rollout"] + parts["update"] + parts["eval"]
rest = steps_and_evals - evals - total("time/rollout") - total("time/score") - total("time/update")
parts |= {"eval": evals, "rollout": total("time/rollout"), "update": total("time/update"), "score": total("time/score"), "rest": rest}
first_step = next(at(event) for event in events if event["kind"] == "phase" and event["phase"] == "rollout")
checkpoints = [{key: event.get(key) for key in ("step", "why", "bytes", "seconds", "blocked_seconds")} for event in events if event["kind"] == "checkpoint"]
report = {
    "wall_seconds": wall, "first_step_seconds": first_step, "steps": len(steps), "parts": parts,
    "other_share": 1 - (parts["rollout"] + parts["update"]) / wall, "checkpoints": checkpoints,
}
pathlib.Path(out).write_text(json.dumps(report, indent=1) + "\n")
shutil.rmtree(work)
for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
    print(f"     {name:12} {seconds:7.2f} s {100 * seconds / wall:5.1f} %")
print(f"     {'all':12} {wall:7.2f} s, {len(steps)} steps, the first of them after {first_step:.2f} s")
for checkpoint in checkpoints:
    print("     checkpoint of step {step} ({why}): {bytes} bytes, durable after {seconds:.2f} s, training stood still for {blocked_seconds:.3f} s".format(**checkpoint))
