"""A random checkpoint of the Qwen3-8B shape with the embedded model's tokenizer, 16 GB in shards of 4 GB; made once a folder."""
import glob, os, shutil
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


def write(folder):
    if os.path.exists(f"{folder}/.whole"):
        return
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen3ForCausalLM(Qwen3Config(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
                                             head_dim=128, vocab_size=151936, max_position_embeddings=40960, rope_theta=1e6))
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    torch.cuda.empty_cache()
    for file in glob.glob("sample-data/models/tiny/*"):
        if "token" in os.path.basename(file) or file.endswith(".jinja") or "generation" in file:
            shutil.copy(file, folder)
    open(f"{folder}/.whole", "w").close()
