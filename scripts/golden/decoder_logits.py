#!/usr/bin/env python3
"""Logits of tiny random Qwen3, Qwen3 MoE, Qwen3.5, Qwen3.5 MoE, gpt-oss, Qwen2, Llama, Mistral, Gemma 3 and Gemma 4 checkpoints, computed by transformers on the CPU in float32.

    python3 scripts/golden/decoder_logits.py OUTDIR [NAME..]        (the files in tests/parity came from here, OUTDIR = tests/parity)

Writes OUTDIR/NAME/{config.json,model.safetensors,golden.json} for each case below. golden.json holds `token_ids`, a list of sequences, and `logits`, for each
sequence one row of the vocabulary's width a position; and `greedy`: a prompt, its likeliest continuation by transformers' own decoding with a cache, and the
log-probability of each token of it; of Qwen3.5, gpt-oss, Gemma 4 and mixtures `gradient`, by tensor two sums of transformers' autograd. Needs torch and transformers (written with 2.11 and 5.17, those of Mistral, YaRN, Qwen3.5, gpt-oss, Gemma 4 and mixtures with 2.15 and 5.24); no network, no other files. The same
versions write the same bytes.
"""

import copy
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, Gemma4ForCausalLM, Gemma4TextConfig, GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3_5ForCausalLM, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FAMILIES = {"gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM), "gemma4_text": (Gemma4TextConfig, Gemma4ForCausalLM), "qwen3_5_text": (Qwen3_5TextConfig, Qwen3_5ForCausalLM), "qwen3_5_moe_text": (Qwen3_5MoeTextConfig, Qwen3_5MoeForCausalLM), "gpt_oss": (GptOssConfig, GptOssForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM), "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM)}

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

# Keys that Gemma 3 does not have, and those that it adds.
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_act": "absent",
    "use_sliding_window": "absent",
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4,
    "rope_local_base_freq": 100.0,
    "pad_token_id": None,
}

# Keys that Gemma 4 does not have, and those that it adds.
GEMMA4 = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    "vocab_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "global_head_dim": 16,
    "hidden_act": "absent",
    "use_sliding_window": "absent",
    "rope_theta": "absent",
    "rope_scaling": "absent",
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 5000.0, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
    "vocab_size_per_layer_input": 64,
    "pad_token_id": None,
}

# Keys that Qwen3.5 does not have, and those that it adds. A small vocabulary, since one sequence is longer than transformers' chunks of 64 tokens.
QWEN3_5 = {
    "architectures": ["Qwen3_5ForCausalLM"],
    "model_type": "qwen3_5_text",
    "vocab_size": 64,
    "use_sliding_window": "absent",
    "rope_theta": "absent",
    "rope_scaling": "absent",
    "linear_conv_kernel_dim": 4,
}

# Keys that Qwen3 with mixtures of experts adds.
QWEN3_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 64, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}

# Keys that Qwen3.5 with mixtures of experts does not have, and those that it adds.
QWEN3_5_MOE = {
    **QWEN3_5,
    "architectures": ["Qwen3_5MoeForCausalLM"],
    "model_type": "qwen3_5_moe_text",
    "intermediate_size": "absent",
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 3,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}

# Keys that gpt-oss does not have, and those that it adds.
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 64,
    "intermediate_size": 20,
    "attention_bias": True,
    "use_sliding_window": "absent",
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 8.0, "beta_slow": 1.0, "truncate": False},
    "rms_norm_eps": 1e-5,
}

# Keys that Mistral does not have, and those that it adds.
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "attention_bias": "absent",
    "use_sliding_window": "absent",
    "sliding_window": None,
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
    # Qwen2: biases on queries, keys and values, no norms of heads, a head's width left to be computed.
    "qwen2-untied": (
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "head_dim": "absent", "attention_bias": "absent", "rope_theta": 1000000.0},
        torch.float32,
        4,
    ),
    # Llama 3.1: rotary wavelengths on both sides of, and between, the two bounds (16 and 64 tokens).
    "llama3-scaled": (
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "head_dim": "absent",
            "use_sliding_window": "absent",
            "mlp_bias": False,
            "rope_theta": 100.0,
            "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        torch.float32,
        5,
    ),
    # A small Llama as SmolLM2: the head is the embedding, no `head_dim`.
    "llama-tied": (
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "head_dim": "absent",
            "use_sliding_window": "absent",
            "rope_interleaved": False,
            "rope_theta": 100000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
        torch.float32,
        6,
    ),
    # A Llama with biases on all four matrices of its attention, in two shards.
    "llama-biased-sharded": (
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "use_sliding_window": "absent",
            "attention_bias": True,
            "num_hidden_layers": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
            "rope_theta": "absent",
            "rope_scaling": "absent",
        },
        torch.float32,
        7,
    ),
    # Gemma 3: a window shorter than the text, three query heads, another query scale than the head's width, a tied head.
    "gemma3-tied": (
        {
            **GEMMA3,
            "hidden_size": 36,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
            "rope_theta": "absent",
            "rope_scaling": "absent",
            "rope_local_base_freq": "absent",
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        torch.float32,
        8,
    ),
    # Its older keys: layers by a pattern, two bases, the global one stretched; five heads, an untied head.
    "gemma3-linear-untied": (
        {
            **GEMMA3,
            "hidden_size": 40,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 3,
            "sliding_window_pattern": 2,
            "rope_theta": 1000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        torch.float32,
        9,
    ),
    # The text part of a model that also sees, in bfloat16, with the names that its weights have there.
    "gemma3-nested-bfloat16": (
        {
            **GEMMA3,
            "hidden_size": 32,
            "head_dim": 12,
            "num_attention_heads": 4,
            "query_pre_attn_scalar": 12,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 7,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        torch.bfloat16,
        10,
    ),
    # YaRN: pairs that are kept, blended and stretched; a score is a product of two softened vectors.
    "qwen3-yarn": (
        {
            "rope_theta": 100.0,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
            "max_position_embeddings": 1024,
        },
        torch.float32,
        14,
    ),
    # Its other keys, as gpt-oss has them.
    "llama-yarn-untruncated": (
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "use_sliding_window": "absent",
            "rope_theta": 100.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 8.0,
                "beta_slow": 2.0,
                "truncate": False,
                "attention_factor": 1.3,
            },
            "max_position_embeddings": 512,
        },
        torch.float32,
        15,
    ),
    # Mistral Nemo: heads that are together wider than the residual stream, an odd number of them, no window.
    "mistral-wide-heads": (
        {**MISTRAL, "num_attention_heads": 3, "num_key_value_heads": 3, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5},
        torch.float32,
        11,
    ),
    # Mistral 7B v0.1: every layer has a window, shorter than the text; no `head_dim`, a tied head.
    "mistral-window-tied": (
        {**MISTRAL, "head_dim": "absent", "num_key_value_heads": 1, "sliding_window": 5, "tie_word_embeddings": True},
        torch.float32,
        12,
    ),
    # The text part of Mistral Small 3.2, in bfloat16.
    "mistral-nested-bfloat16": (
        {
            **MISTRAL,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 12,
            "torch_dtype": "bfloat16",
            "rope_theta": "absent",
            "rope_scaling": "absent",
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        },
        torch.bfloat16,
        13,
    ),
    # Qwen3.5: layers by the default interval, more value heads than key heads, of another width; three query heads, a quarter of each rotated.
    "qwen3_5-untied": (
        {
            **QWEN3_5,
            "hidden_size": 36,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 6,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25, "mrope_section": [1, 1, 0], "mrope_interleaved": True},
        },
        torch.float32,
        16,
    ),
    # Attention first, five value heads for one key head, a kernel of 3, half of each head rotated, a tied head.
    "qwen3_5-tied": (
        {
            **QWEN3_5,
            "hidden_size": 40,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 8,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 5,
            "linear_key_head_dim": 12,
            "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 3,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        torch.float32,
        17,
    ),
    # The text part of a model that also sees, in bfloat16, with the weights of its multi-token prediction.
    "qwen3_5-nested-bfloat16": (
        {
            **QWEN3_5,
            "num_hidden_layers": 2,
            "full_attention_interval": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 3,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "torch_dtype": "bfloat16",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
        },
        torch.bfloat16,
        18,
    ),
    # Experts in every layer, their weights divided by their sum, as Qwen3-30B-A3B has them.
    "qwen3_moe-untied": ({**QWEN3_MOE, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}, torch.float32, 19),
    # Every second layer has experts, and the last is dense nonetheless; softmax as it is, three experts a token, a tied head. `num_local_experts` as transformers 5 writes it.
    "qwen3_moe-sparse-tied": (
        {
            **QWEN3_MOE,
            "num_hidden_layers": 4,
            "num_experts": "absent",
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 12,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "tie_word_embeddings": True,
        },
        torch.float32,
        20,
    ),
    # One expert a token, of seven, in bfloat16; the first layer is dense.
    "qwen3_moe-bfloat16": (
        {**QWEN3_MOE, "num_experts": 7, "num_experts_per_tok": 1, "norm_topk_prob": False, "mlp_only_layers": [0], "torch_dtype": "bfloat16"},
        torch.bfloat16,
        21,
    ),
    # gpt-oss: a window shorter than the text in the first layer, YaRN as it is published, three query heads.
    "gpt_oss-untied": ({**GPT_OSS, "num_attention_heads": 3, "num_key_value_heads": 1}, torch.float32, 22),
    # Full attention first, plain positions, five heads, three of seven experts, gates that are often clamped, a tied head, in bfloat16.
    "gpt_oss-clamped-bfloat16": (
        {
            **GPT_OSS,
            "hidden_size": 40,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 8,
            "sliding_window": 3,
            "num_local_experts": 7,
            "num_experts_per_tok": 3,
            "swiglu_alpha": 1.3,
            "swiglu_limit": 1.5,
            "rope_scaling": "absent",
            "rope_theta": "absent",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        torch.bfloat16,
        23,
    ),
    # Its published form: experts in MXFP4.
    "gpt_oss-mxfp4": (
        {
            **GPT_OSS,
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
        },
        torch.bfloat16,
        24,
    ),
    # Qwen3.5 with experts in every layer, and one that all tokens use.
    "qwen3_5_moe-untied": ({**QWEN3_5_MOE, "hidden_size": 36, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1}, torch.float32, 25),
    # Attention first, four of five experts, half of each head rotated, a tied head.
    "qwen3_5_moe-tied": (
        {
            **QWEN3_5_MOE,
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "layer_types": ["full_attention", "linear_attention"],
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 8,
            "num_experts": 5,
            "num_experts_per_tok": 4,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        torch.float32,
        26,
    ),
    # The text part of a model that also sees, in bfloat16.
    "qwen3_5_moe-nested-bfloat16": (
        {**QWEN3_5_MOE, "layer_types": ["linear_attention", "full_attention"], "num_experts": 7, "num_experts_per_tok": 3, "num_attention_heads": 3, "num_key_value_heads": 3, "torch_dtype": "bfloat16"},
        torch.bfloat16,
        27,
    ),
    # Gemma 4 as E2B: an input of its own for each layer, two layers that read keys and values of others and are twice as wide, capped logits, a tied head.
    "gemma4-shared-tied": (
        {
            **GEMMA4,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 6,
            "final_logit_softcapping": 5.0,
            "tie_word_embeddings": True,
        },
        torch.float32,
        28,
    ),
    # As 31B: values of layers without a window are their keys', of other heads; biases and an untied head, which it does not have. The last layer has no window whatever its type.
    "gemma4-equal-untied": (
        {
            **GEMMA4,
            "hidden_size": 40,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "num_global_key_value_heads": 2,
            "global_head_dim": 12,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
            "sliding_window": 3,
            "attention_k_eq_v": True,
            "attention_bias": True,
            "hidden_size_per_layer_input": 0,
            "use_bidirectional_attention": "vision",
            "rope_parameters": {
                "full_attention": {"rope_type": "proportional", "rope_theta": 1000.0, "partial_rotary_factor": 0.5, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        torch.float32,
        29,
    ),
    # As 26B-A4B: experts beside each dense block, three of five a token, values that are their keys.
    "gemma4-experts": (
        {
            **GEMMA4,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 3,
            "moe_intermediate_size": 12,
            "final_logit_softcapping": 20.0,
            "tie_word_embeddings": True,
        },
        torch.float32,
        31,
    ),
    # The text part of a model that also sees and hears, as E4B, in bfloat16, with keys that no layer reads; the default rotary positions, five heads.
    "gemma4-nested-bfloat16": (
        {
            **GEMMA4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "layer_types": "absent",
            "num_hidden_layers": 12,
            "num_kv_shared_layers": 5,
            "rope_parameters": "absent",
            "hidden_size": 20,
            "intermediate_size": 12,
            "hidden_size_per_layer_input": 4,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        torch.bfloat16,
        30,
    ),
}
# Whose keys are those of `text_config`, under these names; their tensors begin with "language_model.", or with "model.language_model.".
NESTED = {
    "gemma3-nested-bfloat16": ("Gemma3ForConditionalGeneration", "gemma3"),
    "gemma4-nested-bfloat16": ("Gemma4ForConditionalGeneration", "gemma4"),
    "mistral-nested-bfloat16": ("Mistral3ForConditionalGeneration", "mistral3"),
    "qwen3_5-nested-bfloat16": ("Qwen3_5ForConditionalGeneration", "qwen3_5"),
    "qwen3_5_moe-nested-bfloat16": ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe"),
}
SHARDS = {"llama-biased-sharded": 2}
LENGTHS = [1, 2, 7, 19]
HYBRIDS = ["qwen3_5_text", "qwen3_5_moe_text"]
# Configurations that take every key as it is.
AS_THEY_ARE = ["gemma3_text", "gemma4_text", "gpt_oss", *HYBRIDS]


def keys_of(changes):
    """The keys of config.json."""
    keys = {**BASE, **changes}
    return {key: value for key, value in keys.items() if value != "absent"}


def model_config(keys):
    """The configuration in the terms of transformers 5, so that nothing depends on how it reads older files."""
    if keys["model_type"] in AS_THEY_ARE:
        config = FAMILIES[keys["model_type"]][0](**{key: value for key, value in keys.items() if key not in ["architectures", "model_type", "torch_dtype", "quantization_config"]})
        config._attn_implementation = "eager"
        return config
    rope = keys.get("rope_parameters") or {"rope_type": "default", **(keys.get("rope_scaling") or {}), "rope_theta": keys["rope_theta"]}
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
        "sliding_window",
        "num_experts",
        "num_local_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "norm_topk_prob",
        "decoder_sparse_step",
        "mlp_only_layers",
    ]
    config = FAMILIES[keys["model_type"]][0](**{name: keys[name] for name in names if name in keys}, rope_parameters=rope)
    config._attn_implementation = "eager"
    assert config.rope_parameters["rope_theta"] == rope["rope_theta"], config.rope_parameters
    return config


def random_weights(model, element_type, seed):
    """Fills every parameter, and the factors of Gemma 4's layers: matrices N(0, 0.2), biases N(0, 0.3), norm weights around 1 (Gemma's around 0), all exact in `element_type`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        factors = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("layer_scalar")]
        for name, parameter in sorted([*model.named_parameters(), *factors]):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            is_around_zero = model.config.model_type in ["gemma3_text", *HYBRIDS] and "linear_attn" not in name
            centre = 0.0 if name.endswith(".bias") or is_around_zero else 1.0
            # States that last: an output near 0, which a norm blows up, is mostly rounding.
            centre = -3.0 if name.endswith(".A_log") else centre
            values = centre + 0.3 * noise if parameter.dim() == 1 else (0.5 if parameter.dim() == 3 else 0.2) * noise
            parameter.copy_(values.to(element_type).to(torch.float32))


def random_mxfp4(model, seed):
    """Gives the experts random weights that MXFP4 has, and returns blocks and scales by their names in a checkpoint."""
    generator = torch.Generator().manual_seed(2000 + seed)
    packed = {}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
                experts, inputs, outputs = parameter.shape
                blocks = torch.randint(256, (experts, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8)
                scales = torch.randint(122, 127, (experts, outputs, inputs // 32), generator=generator, dtype=torch.uint8)
                parameter.copy_(convert_moe_packed_tensors(blocks, scales).float())
                packed.update({name + "_blocks": blocks, name + "_scales": scales})
    return packed


def as_stored(model_type, name, tensor):
    """A tensor under its name in a Hugging Face checkpoint: transformers 5 has the experts of a layer in one, and writes each of Qwen3's on its own."""
    if ".mlp.experts." not in name or ".lora_" in name or model_type != "qwen3_moe":
        return {name: tensor}
    parts = {}
    for index, expert in enumerate(tensor):
        own = zip(["gate_proj", "up_proj"], expert.chunk(2)) if name.endswith("gate_up_proj") else [("down_proj", expert)]
        parts.update({f"{name.rsplit('.', 1)[0]}.{index}.{part}.weight": matrix for part, matrix in own})
    return parts


def stored(model, element_type, tied):
    """The tensors under the names of a Hugging Face checkpoint; a tied head is not stored."""
    tensors = {}
    for name, tensor in sorted(model.state_dict().items()):
        if not (tied and name == "lm_head.weight"):
            tensors.update({name: own.detach().to(element_type).contiguous().clone() for name, own in as_stored(model.config.model_type, name, tensor).items()})
    return tensors


def save_weights(folder, tensors, shards):
    """One file, or as many shards with their index as save_pretrained would write for a large model."""
    if shards == 1:
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = names[shard::shards]
        save_file({name: tensors[name] for name in own}, os.path.join(folder, file), metadata={"format": "pt"})
        weight_map.update({name: file for name in own})
    total_size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total_size}, "weight_map": weight_map}, file, indent=2, sort_keys=True)
        file.write("\n")


def greedy(model, prompt, count):
    """The likeliest continuation, decoded a token at a time with transformers' cache."""
    token_ids, log_probs, inputs, cache = [], [], torch.tensor([prompt]), None
    with torch.no_grad():
        for _ in range(count):
            output = model(input_ids=inputs, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            row = torch.log_softmax(output.logits[0, -1].double(), dim=-1)
            best = torch.topk(row, 2)
            assert best.values[0] - best.values[1] > 1e-3, "too close to call; take another seed"
            token_ids.append(best.indices[0].item())
            log_probs.append(float(f"{best.values[0].item():.7g}"))
            inputs = best.indices[:1].reshape(1, 1)
    return {"prompt": prompt, "token_ids": token_ids, "log_probs": log_probs}


def gradient(model, sequence):
    """Of the mean cross-entropy of a sequence's tokens after the first, by trained tensor: its norm, and its sum with the weights -5 to 5."""
    model.zero_grad()
    logits = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(sequence[1:])).backward()
    sums = {}
    trained = {name: parameter.grad for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad}
    gradients = {name: own for fused, found in trained.items() for name, own in as_stored(model.config.model_type, fused, found).items()}
    for name, own in gradients.items():
        numbers = own.double().flatten()
        weights = torch.arange(numbers.numel(), dtype=torch.float64) * 7 % 11 - 5
        sums[name] = [float(f"{value:.7g}") for value in [numbers.norm().item(), (numbers * weights).sum().item()]]
    model.zero_grad()
    return sums


def write_case(name, folder, changes, element_type, seed):
    keys = keys_of(changes)
    torch.manual_seed(seed)
    model = FAMILIES[keys["model_type"]][1](model_config(copy.deepcopy(keys))).to(torch.float32).eval()
    random_weights(model, element_type, seed)
    packed = random_mxfp4(model, seed) if "quantization_config" in keys else {}
    generator = torch.Generator().manual_seed(1000 + seed)
    lengths = [*LENGTHS, 70] if keys["model_type"] in HYBRIDS else LENGTHS
    sequences = [torch.randint(keys["vocab_size"], (length,), generator=generator).tolist() for length in lengths]
    logits = []
    with torch.no_grad():
        for sequence in sequences:
            output = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
            assert output.shape == (len(sequence), keys["vocab_size"]) and output.dtype == torch.float32
            assert torch.isfinite(output).all() and output.std() > 0.3
            logits.append([[float(f"{value:.7g}") for value in row] for row in output.tolist()])
    os.makedirs(folder, exist_ok=True)
    prefix = "language_model." if name in NESTED else ""
    is_inside = keys["model_type"] in ["gemma4_text", *HYBRIDS]
    architecture, model_type = NESTED.get(name, (None, None))
    nested = {"architectures": [architecture], "model_type": model_type, "torch_dtype": keys["torch_dtype"], "text_config": keys}
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(nested if prefix else keys, file, indent=2)
        file.write("\n")
    own = stored(model, element_type, keys["tie_word_embeddings"])
    own = {name: tensor for name, tensor in own.items() if name + "_blocks" not in packed} | packed
    if prefix and is_inside:
        tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in own.items()}
        others = ["model.visual.merger.norm.weight", "mtp.norm.weight"]
        if keys["model_type"] == "gemma4_text":
            unread = f"model.language_model.layers.{keys['num_hidden_layers'] - 1}.self_attn.k_norm.weight"
            others = ["model.vision_tower.std_bias", "model.audio_tower.output_proj.bias", "model.embed_vision.embedding_projection.weight", unread]
        tensors.update({name: torch.ones(4) for name in others})
    else:
        tensors = {prefix + name: tensor for name, tensor in own.items()}
        if prefix:
            tensors["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(4)
    save_weights(folder, tensors, SHARDS.get(name, 1))
    if not prefix:
        check_reads_back(folder, keys, sequences[-1], logits[-1])
    golden = {
        "made_by": "scripts/golden/decoder_logits.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "token_ids": sequences,
        "logits": logits,
        "greedy": greedy(model, sequences[2], 12),
    }
    if keys["model_type"] in [*HYBRIDS, "qwen3_moe", "gpt_oss", "gemma4_text"] and not prefix:
        golden["gradient"] = gradient(model, sequences[-1])
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


def check_reads_back(folder, keys, sequence, expected):
    """The folder as transformers loads it gives the same logits, so config.json says what was computed."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
    difference = (output - torch.tensor(expected)).abs().max().item()
    assert difference < 1e-4, f"{folder}: reads back with a difference of {difference}"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    total = 0
    for name, (changes, element_type, seed) in CASES.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        folder = os.path.join(sys.argv[1], name)
        write_case(name, folder, changes, element_type, seed)
        size = sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))
        total += size
        print(f"{folder}: {size} bytes")
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main()
