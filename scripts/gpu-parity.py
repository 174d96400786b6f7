"""Our log-probs on a GPU against transformers and PEFT, on random checkpoints of each family and on a trained run.

    python3 scripts/gpu-parity.py BINARY FOLDER [--base MODEL_FOLDER --adapter CHECKPOINT_FOLDER --merged EXPORT_FOLDER]

FOLDER is where the random checkpoints are written. One line a check; exit code 1 when one fails.
Errors are mean and largest |difference| of log-probs in nats against transformers in f32 on the same weights.
"""
import argparse, json, os, shutil, subprocess, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("folder")
parser.add_argument("--base")
parser.add_argument("--adapter")
parser.add_argument("--merged")
arguments = parser.parse_args()
torch.manual_seed(0)
device = "cuda"
failed = 0

SIZE = dict(vocab_size=2000, hidden_size=256, intermediate_size=704, num_hidden_layers=4, max_position_embeddings=2048, initializer_range=0.05)
FAMILIES = {
    "qwen3": Qwen3ForCausalLM(Qwen3Config(**SIZE, num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=False)),
    "qwen3-tied": Qwen3ForCausalLM(Qwen3Config(**SIZE, num_attention_heads=4, num_key_value_heads=4, head_dim=128, tie_word_embeddings=True)),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**SIZE, num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True)),
    "llama3": LlamaForCausalLM(LlamaConfig(**SIZE, num_attention_heads=8, num_key_value_heads=4, head_dim=32, rope_theta=5e5, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512))),
    "mistral": MistralForCausalLM(MistralConfig(**SIZE, num_attention_heads=8, num_key_value_heads=2, head_dim=64, sliding_window=64)),
    # A window shorter than the text, at every other layer.
    "gemma3": Gemma3ForCausalLM(Gemma3TextConfig(**SIZE, num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=64, sliding_window_pattern=2)),
    "smollm": LlamaForCausalLM(LlamaConfig(**SIZE, num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True)),
}


def ours(folder, ids, *more):
    command = [arguments.binary, "model", "log-probs", folder, "--token-ids", ",".join(map(str, ids)), "--json", "--gpu", "0", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return torch.full((len(ids) - 1,), float("nan"))
    return torch.tensor(json.loads(done.stdout)["log_probs"])


@torch.no_grad()
def theirs(model, ids):
    logits = model(torch.tensor([ids], device=model.device)).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:], device=model.device)[:, None])[:, 0].cpu()


def check(name, found, expected, limit, compared_with=None):
    """Passes when the mean error is below `limit`, or no more than a tenth above that of `compared_with`."""
    global failed
    error = (found - expected).abs()
    mean, largest = error.mean().item(), error.max().item()
    note = ""
    if compared_with is not None:
        other = (compared_with - expected).abs().mean().item()
        limit, note = max(limit, 1.1 * other), f", transformers' own bf16 {other:.2e}"
    passed = mean == mean and mean <= limit
    failed += not passed
    print(f"{'ok  ' if passed else 'FAIL'} parity {name}: mean {mean:.2e}, largest {largest:.2e} nats (allowed {limit:.1e}{note})", flush=True)


def randomise_biases_and_norms(model):
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(*((-0.3, 0.3) if isinstance(model, Gemma3ForCausalLM) else (0.7, 1.3)))
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.2)


os.makedirs(arguments.folder, exist_ok=True)
for name, model in FAMILIES.items():
    randomise_biases_and_norms(model)
    folder = os.path.join(arguments.folder, name)
    # Weights that bf16 holds exactly, so that only the arithmetic differs.
    model.to(torch.bfloat16).save_pretrained(folder)
    # Read again each time: casting a whole model would round its table of rotary frequencies as well.
    read = lambda number_type: AutoModelForCausalLM.from_pretrained(folder, dtype=number_type).to(device)
    ids = torch.randint(0, SIZE["vocab_size"], (700 if name == "qwen3" else 200,)).tolist()
    half, exact = theirs(read(torch.bfloat16), ids), theirs(read(torch.float32), ids)
    check(f"{name} in f32", ours(folder, ids, "--f32"), exact, 1e-4)
    check(f"{name} in bf16", ours(folder, ids), exact, 0.0, half)


def with_mxfp4_experts(folder):
    """A gpt-oss of random codes, in bf16, and beside it the same in MXFP4."""
    model = GptOssForCausalLM(GptOssConfig(**{**SIZE, "intermediate_size": 256}, num_attention_heads=8, num_key_value_heads=2, head_dim=64, num_local_experts=8, num_experts_per_tok=2, sliding_window=64))
    randomise_biases_and_norms(model)
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    stored = {}
    for name, parameter in model.named_parameters():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = parameter.shape
            codes, scales = torch.randint(0, 16, (experts, outputs, inputs)), torch.randint(119, 123, (experts, outputs, inputs // 32))
            numbers = torch.where(codes < 8, 1.0, -1.0) * magnitudes[codes % 8] * torch.exp2(scales.repeat_interleave(32, -1) - 127.0)
            parameter.data.copy_(numbers.transpose(1, 2))
            stored[f"{name}_blocks"] = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8).view(experts, outputs, inputs // 32, 16).contiguous()
            stored[f"{name}_scales"] = scales.to(torch.uint8)
    model.to(torch.bfloat16).save_pretrained(folder)
    packed = f"{folder}-mxfp4"
    shutil.copytree(folder, packed, dirs_exist_ok=True)
    tensors = load_file(f"{folder}/model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if f"{name}_blocks" not in stored}
    assert len(kept) + len(stored) // 2 == len(tensors)
    save_file({**kept, **stored}, f"{packed}/model.safetensors", {"format": "pt"})
    config = json.load(open(f"{packed}/config.json"))
    json.dump({**config, "quantization_config": {"quant_method": "mxfp4"}}, open(f"{packed}/config.json", "w"))
    return packed


folder = os.path.join(arguments.folder, "gpt-oss")
packed = with_mxfp4_experts(folder)
ids = torch.randint(0, SIZE["vocab_size"], (200,)).tolist()
# With transformers it is compared in f32 by tests/parity: in bf16 a router may choose others.
check("gpt-oss in MXFP4 and in bf16", ours(packed, ids), ours(folder, ids), 0.0)

try:
    from peft import LoraConfig, PeftModel, get_peft_model
except ImportError:
    PeftModel = None
    print("FAIL parity peft: the package peft is missing")
    failed += 1
if PeftModel is not None:
    folder = os.path.join(arguments.folder, "qwen3")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    wrapped = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter_name, parameter in wrapped.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(0, 0.02)
    adapter = os.path.join(arguments.folder, "adapter")
    wrapped.save_pretrained(adapter)
    ids = torch.randint(0, SIZE["vocab_size"], (150,)).tolist()
    check("their PEFT adapter here, f32", ours(folder, ids, "--adapter", adapter, "--f32"), theirs(wrapped, ids), 1e-4)
    if arguments.base and arguments.adapter:
        base = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32).to(device)
        ids = torch.randint(0, base.config.vocab_size, (150,)).tolist()
        check("our pretrained model in transformers, f32", ours(arguments.base, ids, "--f32"), theirs(base, ids), 1e-4)
        trained = PeftModel.from_pretrained(base, arguments.adapter)
        check("our PEFT adapter there, f32", ours(arguments.base, ids, "--adapter", arguments.adapter, "--f32"), theirs(trained, ids), 1e-4)
        if arguments.merged:
            merged = AutoModelForCausalLM.from_pretrained(arguments.merged, dtype=torch.float32).to(device)
            check("our merged export there, f32", theirs(merged, ids), theirs(trained, ids), 1e-2)
sys.exit(1 if failed else 0)
