#!/usr/bin/env python3
"""Logits of a model whose files say more than one thing, as transformers reads them: rope_scaling beside rope_parameters, a head beside the embedding.

    python3 scripts/golden/model_files.py OUTDIR     (OUTDIR = tests/parity, after decoder_logits.py; writes OUTDIR/model_files.json)

Each case changes the folder `base` of OUTDIR: `config` replaces keys of config.json, and `head` says what lm_head.weight is: `flipped` (the embedding, its rows
in reverse order), `equal` or `alone` (equal, and the file has no embedding). `logits` are those after the last two tokens of the base's last sequence, in float32 on the CPU. Needs torch
and transformers (written with 2.15 and 5.24); no network.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BASE = "llama-tied"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}

# name, keys of config.json, head
CASES = [
    ("as it is", {}, None),
    ("rope_scaling beside rope_parameters", {"rope_parameters": DEFAULT, "rope_scaling": YARN, "rope_theta": 10000.0}, None),
    ("rope_scaling with its own base", {"rope_parameters": DEFAULT, "rope_scaling": {**YARN, "rope_theta": 300.0}}, None),
    ("no base but that of rope_parameters", {"rope_parameters": DEFAULT, "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": None}, None),
    ("rope_parameters alone", {"rope_parameters": {**YARN, "rope_theta": 300.0}, "rope_scaling": None}, None),
    ("a head of other numbers", {}, "flipped"),
    ("a head that is the embedding", {}, "equal"),
    ("a head and no embedding", {}, "alone"),
]


def changed(base, folder, keys, head):
    shutil.copytree(base, folder)
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({key: value for key, value in config.items() if not (key in keys and value is None)}))
    if head is not None:
        tensors = load_file(folder / "model.safetensors")
        embedding = tensors[EMBEDDING]
        tensors[HEAD] = (embedding.flip(0) if head == "flipped" else embedding).clone().contiguous()
        if head == "alone":
            del tensors[EMBEDDING]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base = pathlib.Path(sys.argv[1]) / BASE
    sequence = json.loads((base / "golden.json").read_text())["token_ids"][-1]
    cases = []
    for name, keys, head in CASES:
        with tempfile.TemporaryDirectory() as work:
            folder = changed(base, pathlib.Path(work) / "model", keys, head)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -2:]
        rows = [[float(f"{value:.7g}") for value in row] for row in logits.tolist()]
        cases.append({"name": name, "config": keys, "head": head, "logits": rows})
    golden = {"made_by": "scripts/golden/model_files.py", "torch": torch.__version__, "transformers": transformers.__version__}
    path = pathlib.Path(sys.argv[1]) / "model_files.json"
    path.write_text(json.dumps({**golden, "base": BASE, "token_ids": sequence, "cases": cases}, separators=(",", ":")) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
