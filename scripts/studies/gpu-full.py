"""Full training, every weight, of the Qwen3-8B shape with random weights on several GPUs of this machine: seconds of a step, and the peak memory of a GPU.

    python3 scripts/studies/gpu-full.py BINARY FOLDER RUNS [PROMPTS [GPUS]]
    python3 scripts/studies/gpu-full.py BINARY FOLDER RUNS checkpoint [GPUS]    a run that is stopped, with its checkpoint of 98 GB, and resumed

FOLDER: the random checkpoint, made where it is missing (17 GB; /dev/shm). RUNS: a folder for the runs. PROMPTS: prompts a step, of 8 completions each (8,32). GPUS: on how
many (those of 2, 4 and 8 that there are). 64 new tokens, and a small KL, so that groups of equal rewards stay in the gradient; it needs a frozen copy of the weights on each
GPU. A step's time is the median from step 3 on. The worker is killed after the last step, since the checkpoint at the end is 98 GB. Exit code 77 with fewer than two GPUs.
"""
import json, pathlib, shutil, signal, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from gpus import at_least_two

gpus = at_least_two()
import random_qwen3

binary, folder, runs = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).absolute()
wanted = sys.argv[4] if len(sys.argv) > 4 else "8,32"
prompts = [] if wanted == "checkpoint" else [int(number) for number in wanted.split(",")]
counts = [int(number) for number in sys.argv[5].split(",")] if len(sys.argv) > 5 else [count for count in (2, 4, 8) if count <= gpus]
STEPS, SECONDS = 6, 1200
SETTINGS = dict(max_steps=1000, lora_rank=0, kl_beta=0.001, completions_per_prompt=8, max_completion_tokens=64, eval_every=0, checkpoint_every=0)
random_qwen3.write(folder)
runs.mkdir(parents=True, exist_ok=True)
failures = 0


def used():
    """GiB of each GPU, as the driver sees them."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [int(line) / 1024 for line in subprocess.run(query, capture_output=True, text=True).stdout.split()]


def removed(work, log):
    """Removes a run's folder; what it printed."""
    log.seek(0)
    output = log.read()
    log.close()
    shutil.rmtree(work)
    return output


def measured(count, prompts):
    """Whether a run on so many GPUs made its steps; prints what it needed."""
    work = pathlib.Path(tempfile.mkdtemp(dir=runs))
    settings = [part for key, value in {**SETTINGS, "prompt_groups_per_step": prompts}.items() for part in ("--set", f"{key}={value}")]
    arguments = [binary, "train", "invoice", "--model", folder, "--gpus", str(count), "--runs", str(work), "--ignore-preflight-errors", *settings]
    log = open(work / "output.log", "w+")
    worker = subprocess.Popen(arguments, stdout=log, stderr=log, text=True)
    peak, events, steps, resumed, start, first = [0.0] * gpus, [], [], 0, time.time(), 0.0
    try:
        while worker.poll() is None and time.time() - start < SECONDS:
            peak = [max(pair) for pair in zip(peak, used())]
            if found := next(work.glob("*/events.jsonl"), None):
                events = [json.loads(line) for line in found.read_text().split("\n")[:-1]]
            # The checkpoint at the end may have no room, of which the run warns and pauses: it is never written.
            pauses = sum(event["kind"] == "phase" and event["phase"] == "paused" for event in events)
            if pauses > resumed:
                resumed = pauses
                subprocess.run([binary, "runs", "resume", str(found.parent)], capture_output=True)
            steps = [event["metrics"] for event in events if event["kind"] == "step"]
            first = first or bool(steps) * (time.time() - start)
            if len(steps) >= STEPS:
                break
            time.sleep(0.2)
    finally:
        if worker.poll() is None:
            worker.send_signal(signal.SIGKILL)
        worker.wait()
        output = removed(work, log)
    if len(steps) < STEPS:
        print(f"FAIL {count} GPUs, {prompts} x 8: {len(steps)} steps in {time.time() - start:.0f} s: {output[-3000:]}", flush=True)
        return False
    median = lambda *names: statistics.median(sum(step.get(f"time/{name}", 0.0) for name in names) for step in steps[2:])
    plan = next(event for event in events if event["kind"] == "memory")
    print(f"ok   {count} GPUs, {prompts} x 8: step {median('rollout', 'score', 'update'):.2f} s (rollout {median('rollout'):.2f}, update {median('update'):.2f}); peak memory of a GPU "
          f"{max(peak):.1f} GiB, planned {plan['peak_bytes'] / 2**30:.1f} GiB, {plan['tokens_per_micro_batch']} tokens a micro-batch, activations "
          f"{'recomputed' if plan['recompute_activations'] else 'kept'}; first step after {first:.0f} s; "
          f"gradient norms {[round(step.get('grad_norm', float('nan')), 4) for step in steps]}", flush=True)
    return True


def events_of(work, kind):
    found = next(work.glob("*/events.jsonl"), None)
    return [event for event in map(json.loads, found.read_text().split("\n")[:-1] if found else []) if event["kind"] == kind]


def until(worker, done):
    """Whether that comes about while the worker lives."""
    while not done():
        if worker.poll() is not None:
            return done()
        time.sleep(0.05)
    return True


def stopped_and_resumed(count):
    """Whether a run on so many GPUs writes its checkpoint when it is stopped, and goes on from it."""
    work = pathlib.Path(tempfile.mkdtemp(dir=runs))
    settings = [part for key, value in {**SETTINGS, "prompt_groups_per_step": 8}.items() for part in ("--set", f"{key}={value}")]
    log = open(work / "output.log", "w+")
    steps = lambda: len(events_of(work, "step"))

    def started(*arguments):
        return subprocess.Popen([binary, "train", *arguments, "--gpus", str(count)], stdout=log, stderr=log)

    worker = started("invoice", "--model", folder, "--runs", str(work), "--ignore-preflight-errors", *settings)
    ran = until(worker, lambda: steps() >= 3)
    worker.send_signal(signal.SIGINT)
    begin = time.time()
    worker.wait()
    took, before = time.time() - begin, steps()
    run = next((path.parent for path in work.glob("*/run.toml")), None)
    last = max((run / "checkpoints").iterdir(), default=None) if run else None
    size = sum(file.stat().st_size for file in last.rglob("*") if file.is_file()) if last else 0
    begin = time.time()
    worker = started("--resume", str(run))
    resumed = ran and size > 0 and until(worker, lambda: steps() >= before + 2)
    again = time.time() - begin
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    output = removed(work, log)
    print(f"{'ok  ' if resumed else 'FAIL'} {count} GPUs: stopped after step {before}, its checkpoint of {size / 1e9:.1f} GB durable {took:.1f} s after it was asked; "
          f"resumed, two steps later after {again:.1f} s{'' if resumed else ': ' + output[-3000:]}", flush=True)
    return resumed


for count in counts:
    if wanted == "checkpoint":
        failures += not stopped_and_resumed(count)
    for number in prompts:
        failures += not measured(count, number)
sys.exit(failures > 0)
