"""A random checkpoint of the Qwen3-8B shape in shards: how fast it loads here, our log-probs in bf16 against transformers' in bf16 and f32, how the memory that
a run plans compares with what the driver then sees, and that weights which do not move give ratios of 1 in every step of a sync interval.

    python3 scripts/gpu-large.py BINARY FOLDER      FOLDER needs 17 GB; in memory (/dev/shm) the disk does not count
"""
import glob, json, os, shutil, subprocess, sys, tempfile, threading, time
import torch
from transformers import AutoModelForCausalLM
import random_qwen3

binary, folder = sys.argv[1:3]
random_qwen3.write(folder)
torch.manual_seed(1)
ids = torch.randint(0, 151936, (300,)).tolist()


@torch.no_grad()
def theirs(number_type):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=number_type).to("cuda")
    logits = model(torch.tensor([ids], device="cuda")).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:], device="cuda")[:, None])[:, 0].cpu()


half = theirs(torch.bfloat16)
torch.cuda.empty_cache()
exact = theirs(torch.float32)
torch.cuda.empty_cache()
start = time.time()
done = subprocess.run([binary, "model", "log-probs", folder, "--token-ids", ",".join(map(str, ids)), "--json", "--gpu", "0"], capture_output=True, text=True)
seconds = time.time() - start
if done.returncode:
    sys.exit(f"FAIL large: {done.stderr}")
ours = torch.tensor(json.loads(done.stdout)["log_probs"])
error, other = (ours - exact).abs().mean().item(), (half - exact).abs().mean().item()
size = sum(os.path.getsize(shard) for shard in glob.glob(folder + "/*.safetensors")) / 1e9
speed = size / seconds
print(f"{'ok  ' if error <= 1.1 * other else 'FAIL'} Qwen3-8B shape in bf16: mean |difference| {error:.2e} nats, transformers' own bf16 {other:.2e}")
print(f"{'ok  ' if speed >= 2 else 'FAIL'} loading {size:.1f} GB: the whole command took {seconds:.1f} s, at least {speed:.1f} GB/s")
passed = error <= 1.1 * other and speed >= 2

# A run of two steps: the weights know nothing, so a KL keeps its dead groups in the gradient.
for recompute in ["never", "always"]:
    runs, seen, running = tempfile.mkdtemp(), [], True

    def watch():
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while running:
            seen.append(int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    settings = dict(max_rows=16, epochs=1, prompt_groups_per_step=8, completions_per_prompt=8, max_completion_tokens=64, kl_beta=0.001, eval_every=0,
                    checkpoint_every=0, lora_rank=16, recompute_activations=recompute)
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run([binary, "train", "invoice", "--model", folder, "--gpu", "0", "--runs", runs, *arguments], capture_output=True, text=True)
    running = False
    watcher.join()
    if done.returncode:
        print(f"FAIL a run of the 8B shape, activations recomputed {recompute}: {done.stderr[-1500:]}")
        passed = False
        continue
    events = [json.loads(line) for line in open(glob.glob(runs + "/*/events.jsonl")[0])]
    planned = next(event["peak_bytes"] for event in events if event["kind"] == "memory") / 2**30
    peak = max(seen) / 1024
    within = abs(planned / peak - 1) <= 0.1
    passed &= within
    print(f"{'ok  ' if within else 'FAIL'} memory, activations recomputed {recompute}: planned {planned:.1f} GiB, the driver saw {peak:.1f} GiB")
    parts = next(event["parts"] for event in events if event["kind"] == "memory")
    print("     " + ", ".join(f"{name} {size / 2**30:.2f}" for name, size in (parts.items() if isinstance(parts, dict) else parts)))

# Learning rate 0 and gspo, whose clip of 3e-4 is narrower than the rounding between sampler and trainer: nothing may be clipped. The head knows only digits
# and the end of a turn, so that some completions parse and the advantages are not 0.
peaked = tempfile.mkdtemp(dir="/dev/shm")
try:
    random_qwen3.write_peaked(folder, peaked)
    runs = tempfile.mkdtemp()
    settings = dict(policy_loss="gspo", weight_sync_interval=2, learning_rate=0, max_steps=4, prompt_groups_per_step=8, completions_per_prompt=8,
                    max_completion_tokens=16, eval_every=0, checkpoint_every=0, lora_rank=16)
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run([binary, "train", "invoice", "--model", peaked, "--gpu", "0", "--runs", runs, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAIL gspo over a sync interval: {done.stderr[-1500:]}")
    steps = [event["metrics"] for line in open(glob.glob(runs + "/*/events.jsonl")[0]) if (event := json.loads(line))["kind"] == "step"]
    clipped = [step.get(f"clip_ratio/{side}_mean") for step in steps for side in ("low", "high")]
    gradients = [step.get("grad_norm") for step in steps]
    still = clipped == [0.0] * 8 and all(gradients)
    passed &= still
    print(f"{'ok  ' if still else 'FAIL'} gspo, weight_sync_interval 2, learning rate 0: clip ratios {clipped}, gradient norms {gradients}")
finally:
    shutil.rmtree(peaked)
sys.exit(0 if passed else 1)
