"""A random checkpoint of the Qwen3-8B shape in shards: how fast it loads here, and our log-probs in bf16 against transformers' in bf16 and f32.

    python3 scripts/gpu-large.py BINARY FOLDER      FOLDER needs 17 GB; in memory (/dev/shm) the disk does not count
"""
import json, re, subprocess, sys, time
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

binary, folder = sys.argv[1:3]
torch.manual_seed(0)
with torch.device("cuda"):
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3ForCausalLM(Qwen3Config(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
                                         head_dim=128, vocab_size=151936, max_position_embeddings=40960, rope_theta=1e6))
    torch.set_default_dtype(torch.float32)
model.save_pretrained(folder, max_shard_size="4GB")
del model
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
loading = re.search(r"loading .*: ([\d.]+) GB in ([\d.]+) s", done.stderr)
speed = float(loading[1]) / float(loading[2]) if loading else 0.0
print(f"{'ok  ' if error <= 1.1 * other else 'FAIL'} Qwen3-8B shape in bf16: mean |difference| {error:.2e} nats, transformers' own bf16 {other:.2e}")
print(f"{'ok  ' if speed >= 2 else 'FAIL'} loading: {loading[0] if loading else 'not told'} ({speed:.1f} GB/s); the whole command {seconds:.1f} s")
sys.exit(0 if error <= 1.1 * other and speed >= 2 else 1)
