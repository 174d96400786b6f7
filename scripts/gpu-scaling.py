"""What more GPUs of this machine gain at the Qwen3-8B shape, random weights: steps of 8 x 8 a GPU, a step of 32 x 8 on more and more GPUs, and the test set.

    python3 scripts/gpu-scaling.py BINARY FOLDER OUT      FOLDER: the random checkpoint, made where it is missing (17 GB; /dev/shm); OUT: the figures, JSON

A run each: 64 new tokens, adapters of rank 16, a small KL so that groups of equal rewards stay in the gradient, 500 test prompts before and after. A step's time is
the median from step 4 on, the test set's that of the faster pass. Exit code 77 with fewer than two GPUs.
"""
import glob, json, pathlib, shutil, statistics, subprocess, sys, tempfile
from gpus import at_least_two

binary, folder, out = sys.argv[1:4]
# By GPUs, the least: share of one GPU's speed with 8 x 8 each; times as fast with 32 x 8 together, and on the test set where that is asked.
LIMITS_OF_H100 = {2: (0.95, 1.6, None)}  # reads weights more slowly, so that half of the rows saves less
LIMITS = {2: (0.95, 1.7, None), 4: (0.92, 2.7, 2.9), 8: (0.88, 3.5, None)}
SETTINGS = dict(max_steps=9, completions_per_prompt=8, max_completion_tokens=64, lora_rank=16, kl_beta=0.001, eval_every=0)

gpus = at_least_two()
import random_qwen3

random_qwen3.write(folder)
work = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(out).absolute().parent))
found = {}


def measured(count, prompts):
    """Of a run on so many GPUs: seconds of a step, its rollout and its update, and of the test set."""
    if (count, prompts) in found:
        return found[count, prompts]
    runs = work / f"{count}-{prompts}"
    settings = [part for key, value in {**SETTINGS, "prompt_groups_per_step": prompts}.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run([binary, "train", "invoice", "--model", folder, "--gpus", str(count), "--runs", str(runs), "--ignore-preflight-errors", *settings],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAIL {count} GPUs, {prompts} prompts: {done.stderr[-3000:]}")
    events = [json.loads(line) for line in open(glob.glob(f"{runs}/*/events.jsonl")[0])]
    steps = [event["metrics"] for event in events if event["kind"] == "step"][3:]
    median = lambda *names: statistics.median(sum(step[f"time/{name}"] for name in names) for step in steps)
    test = min(event["seconds"] for event in events if event["kind"] == "eval" and event["set"] == "test")
    result = dict(gpus=count, prompts=prompts, step=median("rollout", "score", "update"), rollout=median("rollout"), update=median("update"), test=test)
    print("     {gpus} GPUs, {prompts} x 8: step {step:.3f} s (rollout {rollout:.3f}, update {update:.3f}), 500 test prompts {test:.2f} s".format(**result), flush=True)
    found[count, prompts] = result
    return result


failures = 0


def judge(what, value, least):
    global failures
    failures += value < least
    print(f"{'ok  ' if value >= least else 'FAIL'} {what}: {value:.2f} (>= {least})", flush=True)


alone, large = measured(1, 8), measured(1, 32)
card = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True).stdout
for count, (weak, strong, test) in (LIMITS | (LIMITS_OF_H100 if "H100" in card else {})).items():
    if count > gpus:
        break
    own, shared = measured(count, 8 * count), measured(count, 32)
    judge(f"{count} GPUs with 8 x 8 each, against one: share of its speed a GPU", alone["step"] / own["step"], weak)
    judge(f"{count} GPUs with 32 x 8 together, against one: times as fast", large["step"] / shared["step"], strong)
    if test:
        judge(f"{count} GPUs, 500 test prompts: times as fast", large["test"] / shared["test"], test)
pathlib.Path(out).write_text(json.dumps(list(found.values()), indent=1) + "\n")
shutil.rmtree(work)
sys.exit(failures > 0)
