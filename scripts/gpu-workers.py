"""Runs of the embedded model in the background on the GPUs of this machine: one a GPU side by side, one more waits, a killed holder frees its slot, requests reach
a live run, and a run that was killed and resumed ends as one that was not, byte for byte. `gpu-workers.py BINARY FOLDER`; a line a check."""
import hashlib, json, os, pathlib, signal, subprocess, sys, time
from gpus import count

binary, folder = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
runs = folder / "runs-workers"
os.environ["GRPO_TUI_SLOTS"] = str(folder / "slots")
SETTINGS = {"lora_rank": 8, "prompt_groups_per_step": 8, "completions_per_prompt": 8, "max_completion_tokens": 64, "eval_every": 0, "checkpoint_every": 2}
failures = 0


def told(ok, text):
    global failures
    failures += not ok
    print("ok  " if ok else "FAIL", text, flush=True)


def call(*arguments, check=True):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"FAIL {' '.join(map(str, arguments))}: {done.stderr}")
    return done


def start(name, steps, *extra):
    settings = [part for key, value in {**SETTINGS, "max_steps": steps}.items() for part in ("--set", f"{key}={value}")]
    return pathlib.Path(json.loads(call("train", "invoice", "--runs", runs, "--name", name, "--detach", "--json", *settings, *extra).stdout)["path"])


def state(run):
    try:
        return json.loads((run / "state.json").read_text())
    except (OSError, ValueError):
        return {}


def until(what, seconds=90):
    begin = time.time()
    while time.time() - begin < seconds:
        if what():
            return time.time() - begin
        time.sleep(0.02)
    return None


def event_devices(run):
    return [json.loads(line)["device"] for line in (run / "events.jsonl").read_text().splitlines() if '"kind":"run"' in line]


gpus = count() or 1  # The CPU has one slot too.
holders = [start(f"holder-{index}", 5000) for index in range(gpus)]
took = until(lambda: all(state(run).get("status") == "running" and state(run)["step"] > 3 for run in holders))
told(took is not None, f"{gpus} runs compute side by side, one a GPU, {took} s after the last launch: {[event_devices(run)[-1] for run in holders]}")
waiting = start("waits", 5000)
until(lambda: state(waiting).get("status") == "waiting", 10)
told(state(waiting).get("status") == "waiting", f"one more waits: {state(waiting).get('cause')}")

call("runs", "pause", holders[0], "--json")
told(until(lambda: state(holders[0]).get("status") == "paused", 20) is not None, "a run on a GPU is paused between steps")
call("runs", "resume", holders[0], "--json")
step = state(holders[0])["step"]
told(until(lambda: state(holders[0])["step"] > step + 2, 20) is not None, "and goes on")
call("runs", "set", holders[0], "learning_rate=1e-6", "--json")

victim = holders[-1]
os.kill(state(victim)["pid"], signal.SIGKILL)
took = until(lambda: state(waiting).get("status") == "running", 60)
told(took is not None, f"the worker on the last GPU was killed; the waiting run computes {took} s later on {event_devices(waiting)[-1] if took else '-'}")
for run in [*holders[:-1], waiting]:
    begin = time.time()
    call("runs", "stop", run, "--now", "--wait", 30, "--json", check=False)
    told(state(run).get("status") == "interrupted", f"{run.name}: stopped now, {time.time() - begin:.2f} s, {state(run).get('cause')}")


def finished(run):
    return until(lambda: state(run).get("status") in ("finished", "failed"), 120)


def trace(run):
    """What a run brought, without times: rewards and evals by step, and the last adapter's digest."""
    groups, evals = {}, {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "group":
            groups[event["step"], event["prompt_id"]] = event["rewards"]
        if event["kind"] == "eval":
            evals[event["step"], event["set"]] = {key: value for key, value in event["summary"].items()}
    last = sorted((run / "checkpoints").iterdir())[-1]
    return groups, evals, hashlib.sha256((last / "adapter_model.safetensors").read_bytes()).hexdigest()


whole = start("whole", 8)
finished(whole)
same = start("the-same", 8)
finished(same)
told(trace(whole) == trace(same), f"two runs of one configuration end alike: {trace(whole)[2][:12]}")
for point in (3, 6):
    run = start(f"killed-{point}", 8)
    reached = until(lambda: state(run).get("step", 0) >= point, 60)
    os.kill(state(run)["pid"], signal.SIGKILL)
    until(lambda: call("runs", "resume", run, "--json", check=False).returncode == 0, 20)
    finished(run)
    told(reached is not None and trace(run) == trace(whole), f"killed after step {point} and resumed: {trace(run)[2][:12]}")
print(f"{'passed' if not failures else 'FAILED'}: {failures} failures")
sys.exit(failures > 0)
