#!/usr/bin/env python3
"""Logits of tiny random Qwen3 checkpoints, computed by transformers on the CPU in float32.

    python3 scripts/golden/qwen3_logits.py OUTDIR        (the files in tests/parity came from here, OUTDIR = tests/parity)

Writes OUTDIR/NAME/{config.json,model.safetensors,golden.json} for each case below. golden.json holds `token_ids`, a list of sequences, and `logits`, for each
sequence one row of the vocabulary's width a position. Needs torch and transformers (written with 2.11 and 5.17); no network, no other files. The same
versions write the same bytes.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

BASE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "max_position_embeddings": 256,
    "torch_dtype": "float32",
}

# name -> (changed keys, element type of the stored weights, seed)
CASES = {
    # Grouped queries 4:2, an untied head, heads wider together than the residual stream.
    "grouped-untied": ({}, torch.float32, 1),
    # Grouped queries 2:1, the head is the embedding, heads as wide as the residual stream; the rotary base as transformers 5 writes it.
    "tied": (
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "rope_theta": "absent",
            "rope_scaling": "absent",
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "rms_norm_eps": 1e-5,
        },
        torch.float32,
        2,
    ),
    # One key head for four query heads, one layer, a large rotary base, weights stored in bfloat16.
    "multi-query-bfloat16": (
        {"num_key_value_heads": 1, "num_hidden_layers": 1, "rope_theta": 1000000.0, "torch_dtype": "bfloat16"},
        torch.bfloat16,
        3,
    ),
}
LENGTHS = [1, 2, 7, 19]


def keys_of(changes):
    """The keys of config.json."""
    keys = {**BASE, **changes}
    return {key: value for key, value in keys.items() if value != "absent"}


def model_config(keys):
    """The configuration in the terms of transformers 5, so that nothing depends on how it reads older files."""
    theta = keys.get("rope_theta") or keys["rope_parameters"]["rope_theta"]
    names = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "rms_norm_eps",
        "tie_word_embeddings",
        "max_position_embeddings",
        "attention_bias",
    ]
    config = Qwen3Config(**{name: keys[name] for name in names}, rope_parameters={"rope_type": "default", "rope_theta": theta})
    config._attn_implementation = "eager"
    assert config.rope_parameters["rope_theta"] == theta, config.rope_parameters
    return config


def random_weights(model, element_type, seed):
    """Fills every parameter: matrices N(0, 0.2), norm weights around 1, all exact in `element_type`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            values = 1.0 + 0.3 * noise if parameter.dim() == 1 else 0.2 * noise
            parameter.copy_(values.to(element_type).to(torch.float32))


def stored(model, element_type, tied):
    """The tensors under the names of a Hugging Face checkpoint; a tied head is not stored."""
    tensors = {}
    for name, tensor in sorted(model.state_dict().items()):
        if not (tied and name == "lm_head.weight"):
            tensors[name] = tensor.detach().to(element_type).contiguous().clone()
    return tensors


def write_case(folder, changes, element_type, seed):
    keys = keys_of(changes)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(model_config(keys)).to(torch.float32).eval()
    random_weights(model, element_type, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    sequences = [torch.randint(keys["vocab_size"], (length,), generator=generator).tolist() for length in LENGTHS]
    logits = []
    with torch.no_grad():
        for sequence in sequences:
            output = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
            assert output.shape == (len(sequence), keys["vocab_size"]) and output.dtype == torch.float32
            assert torch.isfinite(output).all() and output.std() > 0.3
            logits.append([[float(f"{value:.7g}") for value in row] for row in output.tolist()])
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(keys, file, indent=2)
        file.write("\n")
    save_file(stored(model, element_type, keys["tie_word_embeddings"]), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    check_reads_back(folder, keys, sequences[-1], logits[-1])
    golden = {
        "made_by": "scripts/golden/qwen3_logits.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "token_ids": sequences,
        "logits": logits,
    }
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


def check_reads_back(folder, keys, sequence, expected):
    """The folder as transformers loads it gives the same logits, so config.json says what was computed."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
    difference = (output - torch.tensor(expected)).abs().max().item()
    assert difference < 1e-4, f"{folder}: reads back with a difference of {difference}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    total = 0
    for name, (changes, element_type, seed) in CASES.items():
        folder = os.path.join(sys.argv[1], name)
        write_case(folder, changes, element_type, seed)
        size = sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))
        total += size
        print(f"{folder}: {size} bytes")
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main()
