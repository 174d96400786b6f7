"""Runs of the embedded model on two GPUs of this machine, a rank on each: the same bytes twice, the gradient of one GPU, a rank that is killed ends the run with its
name and leaves no process, the run resumes, and NCCL's sockets serve as well. A small random Qwen3, trained in full with weights and moments divided: the same bytes
twice, the updates of one GPU, the same bytes after a death, and it goes on with another number of GPUs. Adapters of a small random Qwen3 in fp8 and of a mixture of
experts, trained on answers: the same bytes twice, the gradient of one GPU. Conversations of agents: the requests and rewards of one GPU. `gpu-ranks.py BINARY FOLDER`; a line a check. Exit code 77 with fewer than two GPUs."""
import hashlib, json, os, pathlib, re, signal, subprocess, sys, time
from gpus import at_least_two

binary, folder = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
runs = folder / "runs-ranks"
os.environ["GRPO_TUI_SLOTS"] = str(folder / "slots")
SETTINGS = {"lora_rank": 8, "prompt_groups_per_step": 8, "completions_per_prompt": 8, "max_completion_tokens": 64, "eval_every": 0, "checkpoint_every": 2, "seed": 7}
failures = 0


def told(ok, text):
    global failures
    failures += not ok
    print("ok  " if ok else "FAIL", text, flush=True)


def arguments(name, steps, *extra, task="invoice"):
    settings = [part for key, value in {**SETTINGS, "max_steps": steps}.items() for part in ("--set", f"{key}={value}")]
    return [binary, "train", task, "--runs", str(runs / name), *settings, *extra]


def run_of(name):
    return next((path.parent for path in (runs / name).glob("*/run.toml")), None)


def trained(name, *extra, steps=4, environment={}, task="invoice"):
    """The folder of a run that has ended, and what it printed."""
    done = subprocess.run(arguments(name, steps, *extra, task=task), capture_output=True, text=True, env={**os.environ, **environment})
    told(done.returncode == 0, f"{name}: exit code {done.returncode} {done.stderr[-600:] if done.returncode else ''}")
    return run_of(name)


def events(run, kind):
    lines = (run / "events.jsonl").read_text().splitlines() if run else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def first_norm(run):
    return next((event["metrics"]["grad_norm"] for event in events(run, "step") if "grad_norm" in event.get("metrics", {})), float("nan"))


def adapter(run):
    last = sorted((run / "checkpoints").iterdir())[-1]
    return hashlib.sha256((last / "adapter_model.safetensors").read_bytes()).hexdigest()


def until(what, seconds):
    begin = time.time()
    while time.time() - begin < seconds:
        if found := what():
            return found
        time.sleep(0.02)
    return None


def ranks_of(worker):
    """The other ranks, as children of rank 0."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(worker)], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


gpus = at_least_two()

one, two, again = trained("one", "--gpu", "0"), trained("two", "--gpus", "2"), trained("again", "--gpus", "0,1")
devices = [event["device"] for event in events(two, "run")]
told(all(device.startswith("2 GPUs: cuda:0 ") for device in devices) and bool(devices), f"the run names its devices: {devices}")
told(adapter(two) == adapter(again), f"two runs of one configuration end alike: {adapter(two)[:12]}")
norms = first_norm(one), first_norm(two)
told(abs(norms[0] - norms[1]) <= 0.02 * norms[0], f"the first gradient's norm on one GPU and on two: {norms}")
rewards = [[event["rewards"] for event in events(run, "group") if event["step"] == 1] for run in (one, two)]
means = [sum(map(sum, found)) / max(1, sum(map(len, found))) for found in rewards]
told(len(rewards[0]) == len(rewards[1]) == 8 and abs(means[0] - means[1]) < 0.2, f"the first step's mean reward on one GPU and on two: {means}")

sockets = trained("sockets", "--gpus", "2", environment={"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"})
told(abs(first_norm(sockets) - norms[1]) <= 0.02 * norms[1], f"over sockets the first gradient's norm is {first_norm(sockets)}")

for victim in ("rank", "worker"):
    name = f"killed-{victim}"
    worker = subprocess.Popen(arguments(name, 5000, "--gpus", "all"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stepped = until(lambda: run_of(name) and len(events(run_of(name), "step")) >= 3, 120)
    ranks = ranks_of(worker.pid)
    told(stepped is not None and len(ranks) == gpus - 1, f"{name}: {len(ranks)} other ranks on {gpus} GPUs")
    begin = time.time()
    os.kill(ranks[-1] if victim == "rank" else worker.pid, signal.SIGKILL)
    message = worker.communicate(timeout=60)[1]
    took = time.time() - begin
    if victim == "rank":
        told(took < 20 and f"rank {len(ranks)} (pid {ranks[-1]} on " in message, f"a killed rank ends the run after {took:.1f} s: {message.strip().splitlines()[-2:]}")
    told(until(lambda: not any(map(alive, ranks)), 20) is not None, f"{name}: no rank stays, {time.time() - begin:.1f} s later")
    resumed = subprocess.Popen([binary, "train", "--resume", str(run_of(name)), "--gpus", "all"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    steps = len(events(run_of(name), "step"))
    told(until(lambda: len(events(run_of(name), "step")) > steps + 2, 120) is not None, f"{name}: it goes on when resumed")
    resumed.send_signal(signal.SIGINT)
    message = resumed.communicate(timeout=60)[1]
    told(resumed.returncode == 130, f"{name}: and stops after the step when asked: {message.strip().splitlines()[-1:]}")

import random_qwen3
import torch
from safetensors.torch import load_file

# Every weight, on answers: nothing is sampled, so that one GPU and two differ by rounding alone.
small = folder / "models" / "random-small"
random_qwen3.write(str(small), dict(hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=5120))
FULL = [part for value in ("method=sft", "lora_rank=0", "learning_rate=2e-6", "weight_decay=0.1", "tokens_per_micro_batch=512", "checkpoint_every=20")
        for part in ("--set", value)] + ["--model", str(small)]
STEPS = 100


def files(run):
    """Weights and moments of the last checkpoint, as bytes."""
    last = sorted((run / "checkpoints").iterdir())[-1]
    return last.name, *((last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors"))


def apart(run, other, name):
    """Relative difference of two runs' last checkpoints, over all numbers."""
    last = [load_file(sorted((run / "checkpoints").iterdir())[-1] / name) for run in (run, other)]
    found, expected = (torch.cat([tensors[key].flatten().double() for key in sorted(tensors)]) for tensors in last)
    return ((found - expected).norm() / expected.norm()).item()


def norms(run):
    return [event["metrics"]["grad_norm"] for event in events(run, "step")]


one, two, again = (trained(name, *FULL, *gpus_of, steps=STEPS) for name, gpus_of in
                   (("full-one", ["--gpus", "1"]), ("full-two", ["--gpus", "2"]), ("full-again", ["--gpus", "0,1"])))
told(files(two) == files(again), f"full training: two runs on two GPUs end alike, at {files(two)[0]}")
pairs = list(zip(norms(one), norms(two)))
told(len(pairs) == STEPS and all(abs(a - b) <= 0.02 * a for a, b in pairs), f"full training: the gradient's norm on one GPU and on two: {pairs[0]}, ... {pairs[-1]}")
weights, moments = (apart(two, one, name) for name in ("model.safetensors", "optimizer.safetensors"))
told(weights < 1e-3 and moments < 0.1, f"full training: weights on two GPUs differ by {weights:.1e} from those on one, moments by {moments:.1e}")
parts = [{name for name, _ in (event["parts"].items() if isinstance(event["parts"], dict) else event["parts"])} for event in events(two, "memory")]
told(bool(parts) and "AdamW moments (f32, sharded)" in parts[0], f"full training: the plan has {sorted(parts[0]) if parts else None}")
for count in ("2", "1"):
    name = f"full-killed-{count}"
    worker = subprocess.Popen(arguments(name, STEPS, *FULL, "--gpus", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stepped = until(lambda: run_of(name) and len(events(run_of(name), "step")) >= 30, 120)
    victims = ranks_of(worker.pid)
    if stepped and victims:
        os.kill(victims[-1], signal.SIGKILL)
    message = worker.communicate(timeout=120)[1]
    told(worker.returncode == 1 and "rank 1 (pid " in message, f"{name}: a killed rank ends the run: {message.strip().splitlines()[-1:]}")
    resumed = subprocess.run([binary, "train", "--resume", str(run_of(name)), "--gpus", count], capture_output=True, text=True)
    told(resumed.returncode == 0, f"{name}: resumed on {count}: exit code {resumed.returncode} {resumed.stderr[-600:] if resumed.returncode else ''}")
    if count == "2":
        told(files(run_of(name)) == files(two), f"{name}: it ends as uninterrupted")
    else:
        weights = apart(run_of(name), two, "model.safetensors")
        told(weights < 1e-3, f"{name}: its weights differ by {weights:.1e}")

# Adapters beside a base in fp8, and beside experts.
mixture = folder / "models" / "random-mixture"
random_qwen3.write_mixture(str(mixture))
for name, model, more in (("fp8", small, ["--set", "base_precision=fp8"]), ("experts", mixture, [])):
    own = ["--model", str(model), "--set", "method=sft", *more]
    one, two, again = (trained(f"{name}-{run}", *own, *gpus_of) for run, gpus_of in
                       (("one", ["--gpus", "1"]), ("two", ["--gpus", "2"]), ("again", ["--gpus", "0,1"])))
    told(adapter(two) == adapter(again), f"{name}: two runs on two GPUs end alike: {adapter(two)[:12]}")
    pair = first_norm(one), first_norm(two)
    told(pair[0] > 0 and abs(pair[0] - pair[1]) <= 0.02 * pair[0], f"{name}: the first gradient's norm on one GPU and on two: {pair}")
    answers = [[eval["summary"] for eval in events(run, "eval")] for run in (two, again)]
    told(bool(answers[0]) and answers[0] == answers[1], f"{name}: evals of two runs on two GPUs are alike: {len(answers[0])}")

# Each rank answers the programs of its own groups.
agents = folder / "agents/tasks/invoice-agent"
subprocess.run([binary, "init", str(folder / "agents"), "--template", "agent"], check=True, stdout=subprocess.DEVNULL)
toml = (agents / "task.toml").read_text()
(agents / "task.toml").write_text(toml.replace("[agent]\n", '[agent]\nisolation = "none"\nmemory_mib = 0\n', 1))
subprocess.run([binary, "task", "trust", str(agents), "--yes"], check=True, stdout=subprocess.DEVNULL)
one, two = (trained(f"agents-{name}", "--model", "tiny", *gpus_of, steps=2, task=str(agents)) for name, gpus_of in
            (("one", ["--gpu", "0"]), ("two", ["--gpus", "2"])))
# Which rows are decoded together depends on when programs ask, and so does the rounding of bf16: tokens differ now and then.
first = [events(run, "step")[0]["metrics"] for run in (one, two)]
for name, most in (("agent/requests", 0.05), ("reward", 0.1)):
    pair = [metrics[name] for metrics in first]
    told(abs(pair[0] - pair[1]) < most, f"agents: {name} of the first step on one GPU and on two: {pair}")
told(min(metrics["grad_norm"] for metrics in first) > 0, "agents: both have a gradient")

few = subprocess.run(arguments("few", 1, "--gpus", str(gpus + 1)), capture_output=True, text=True)
told(few.returncode == 2 and run_of("few") is None and re.search(r"add --gpus all", few.stderr) is not None, f"more GPUs than there are: {few.stderr.strip()}")
print(f"{'passed' if not failures else 'FAILED'}: {failures} failures")
sys.exit(failures > 0)
