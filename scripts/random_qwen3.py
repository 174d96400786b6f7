"""A random checkpoint with the embedded model's tokenizer, by default of the Qwen3-8B shape, 16 GB in shards of 4 GB; made once a folder."""
import glob, json, os, shutil
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM


QWEN3_8B = dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=151936)


SMALL_MIXTURE = dict(hidden_size=256, intermediate_size=768, moe_intermediate_size=128, num_experts=16, num_experts_per_tok=4, norm_topk_prob=True, num_hidden_layers=4,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=5120)


def write(folder, shape=QWEN3_8B):
    write_model(folder, lambda: Qwen3ForCausalLM(Qwen3Config(**shape, max_position_embeddings=40960, rope_theta=1e6)))


def write_mixture(folder, shape=SMALL_MIXTURE):
    write_model(folder, lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, max_position_embeddings=40960, rope_theta=1e6)))


def write_model(folder, make):
    if os.path.exists(f"{folder}/.whole"):
        return
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = make()
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    torch.cuda.empty_cache()
    for file in glob.glob("sample-data/models/tiny/*"):
        if "token" in os.path.basename(file) or file.endswith(".jinja") or "generation" in file:
            shutil.copy(file, folder)
    open(f"{folder}/.whole", "w").close()


def write_peaked(folder, peaked):
    """The same with a head that knows only digits and the end of a turn; all other shards are links to those of `folder`."""
    vocabulary = json.load(open(f"{folder}/tokenizer.json"))
    ids = {**vocabulary["model"]["vocab"], **{token["content"]: token["id"] for token in vocabulary["added_tokens"]}}
    known = [ids[token] for token in [*"0123456789", "<|im_end|>"]]
    shard = json.load(open(f"{folder}/model.safetensors.index.json"))["weight_map"]["lm_head.weight"]
    for file in os.listdir(folder):
        if file != shard:
            os.symlink(os.path.abspath(f"{folder}/{file}"), f"{peaked}/{file}")
    tensors = load_file(f"{folder}/{shard}")
    head = torch.zeros_like(tensors["lm_head.weight"])
    head[known] = 8 * tensors["lm_head.weight"][known]
    save_file(tensors | {"lm_head.weight": head}, f"{peaked}/{shard}", metadata={"format": "pt"})
