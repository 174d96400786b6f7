#!/usr/bin/env python3
"""Adapters written by PEFT beside checkpoints of decoder_logits.py, with the logits of base and adapter together, on the CPU in float32.

    python3 scripts/golden/peft_adapters.py OUTDIR [NAME..]        (OUTDIR = tests/parity, after decoder_logits.py)

Writes OUTDIR/NAME/{adapter_config.json,adapter_model.safetensors,golden.json} for each case below. golden.json names the base's folder in OUTDIR and holds
`token_ids`, `logits` as decoder_logits.py does, `merged`: sums and absolute sums of the tensors that PEFT's own merge changed, and where experts have
adapters `gradient`, as decoder_logits.py, by adapter. Needs torch, transformers and peft (written with 2.11, 5.17 and 0.21; adapters of experts with 2.15, 5.24
and 0.21.2); no network. The same versions write the same bytes.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from decoder_logits import as_stored, gradient
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

# What all experts of a layer have, in one parameter each.
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

# name -> (base, keys of LoraConfig, seed)
CASES = {
    "peft-all-linear": ("grouped-untied", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}, 11),
    # Two of the seven matrices, beside biases; a scale that is not whole.
    "peft-subset": ("qwen2-untied", {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}, 12),
    # Rank-stabilised: the delta is scaled by alpha / sqrt(r).
    "peft-rslora": ("llama-tied", {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "use_rslora": True}, 13),
    # Layers of the gated delta rule, and attention with a gate (torch 2.15, transformers 5.24).
    "peft-gated-delta": ("qwen3_5-untied", {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}, 14),
    # Attention alone: of a mixture of experts PEFT reads the names of the other matrices as those of the fused experts, in dense layers too.
    "peft-experts": ("qwen3_moe-sparse-tied", {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}, 15),
    # Beside biases and sinks.
    "peft-gpt_oss": ("gpt_oss-untied", {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}, 16),
    # Layers without keys and values of their own, and an input for each layer, whose matrices have no adapters.
    "peft-gemma4": ("gemma4-shared-tied", {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}, 18),
    # The expert that every token uses, and its gate.
    "peft-fused-experts": ("qwen3_moe-untied", {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], "target_parameters": EXPERTS}, 18),
    "peft-fused-experts-gpt_oss": ("gpt_oss-untied", {"r": 2, "lora_alpha": 5, "target_modules": "all-linear", "target_parameters": EXPERTS}, 19),
    "peft-fused-experts-shared": ("qwen3_5_moe-tied", {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "target_parameters": EXPERTS}, 20),
    # Gates and ups without downs: PEFT names the wrapper by its place, so it has the name that downs have elsewhere.
    "peft-gate-up-experts": ("qwen3_moe-sparse-tied", {"r": 3, "lora_alpha": 6, "target_modules": [], "target_parameters": EXPERTS[:1]}, 21),
    # A base that also sees: the text model is `model.language_model`, and the same names reach the part that sees (torch 2.15, transformers 5.24).
    "peft-gemma3-vision": ("gemma3-nested-bfloat16", {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}, 22),
    "peft-shared-expert": ("qwen3_5_moe-tied", {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}, 17),
}


# What the part that sees has instead of the defaults; its weights are random, and text does not reach them.
VISION = {
    "peft-gemma3-vision": {"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
}


def random_adapter(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float32))


def normalise_config(folder):
    """PEFT writes sets in the order of their hashes and a path of this machine: make both the same everywhere."""
    path = os.path.join(folder, "adapter_config.json")
    with open(path) as file:
        config = json.load(file)
    config["base_model_name_or_path"] = os.path.basename(config["base_model_name_or_path"])
    for key in ("target_modules", "target_parameters"):
        config[key] = sorted(config[key]) if config.get(key) is not None else None
    with open(path, "w") as file:
        json.dump(config, file, indent=2, sort_keys=True)
        file.write("\n")


def write_case(out, name, base, keys, seed):
    folder = os.path.join(out, name)
    with open(os.path.join(out, base, "golden.json")) as file:
        sequences = json.load(file)["token_ids"]
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(os.path.join(out, base))
    if name in VISION:
        config.vision_config = type(config.vision_config)(**VISION[name])
    model = AutoModelForCausalLM.from_pretrained(os.path.join(out, base), config=config, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **keys)).eval()
    random_adapter(model, seed)
    logits = []
    with torch.no_grad():
        for sequence in sequences:
            output = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
            assert torch.isfinite(output).all()
            logits.append([[float(f"{value:.7g}") for value in row] for row in output.tolist()])
    experts = {"gradient": adapter_gradient(model, sequences[-1])} if "target_parameters" in keys else {}
    model.save_pretrained(folder)
    for file in os.listdir(folder):
        if file not in ("adapter_config.json", "adapter_model.safetensors"):
            os.remove(os.path.join(folder, file))
    normalise_config(folder)
    golden = {
        "made_by": "scripts/golden/peft_adapters.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "base": base,
        "token_ids": sequences,
        "logits": logits,
        **experts,
        "merged": merged_sums(model),
    }
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")
    print(f"{folder}: {sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))} bytes")


def adapter_gradient(model, sequence):
    """As decoder_logits.py writes it, by the names of the adapter's file."""
    return {name.replace(".default.", "."): sums for name, sums in gradient(model, sequence).items()}


def merged_sums(model):
    """For each matrix that has an adapter, and of a layer whose experts have some for each of theirs, [sum, sum of magnitudes] after PEFT merged it."""
    adapted = {name.split(".lora_A.")[0].removeprefix("base_model.model.") for name, _ in model.named_parameters() if ".lora_A." in name}
    sums = {}
    for name, tensor in model.merge_and_unload().state_dict().items():
        of_experts = name.rpartition(".")[0] in adapted and name.endswith("_proj")
        if of_experts or name.removesuffix(".weight") in adapted:
            sums |= {name: [own.double().sum().item(), own.double().abs().sum().item()] for name, own in as_stored(model.config.model_type, name, tensor).items()}
    texts = {name.replace("model.language_model.", "model."): own for name, own in sums.items() if "vision" not in name}
    return dict(sorted(texts.items()))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for name, (base, keys, seed) in CASES.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        write_case(sys.argv[1], name, base, keys, seed)


if __name__ == "__main__":
    main()
