"""Seconds of a rollout in vLLM, for comparison with `grpo-tui-lab bench gpu`: random weights of a shape, no adapter, no log-probs.

    python3 scripts/studies/vllm-bench.py --shape qwen3.5-9b --step 1x4 --step 8x8

Prompts of 100 random tokens, exactly 64 new tokens each. One JSON line a step shape: the median of three rollouts after a first. Needs vLLM 0.22; exits with 77 where it is missing.
"""
import argparse, json, os, random, statistics, sys, tempfile, time

for name, value in {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}.items():
    os.environ.setdefault(name, value)
try:
    from vllm import LLM, ModelRegistry, SamplingParams
    from vllm.model_executor.models import qwen3_5
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.model_executor.models.interfaces import IsHybrid
except ImportError as missing:
    print(f"not measured: {missing}", file=sys.stderr)
    sys.exit(77)

QWEN = dict(vocab_size=151936, head_dim=128, num_attention_heads=32, rope_theta=1e6, max_position_embeddings=40960, hidden_act="silu", rms_norm_eps=1e-6)
SHAPES = {  # as crates/core/src/hub/shapes.rs has them
    "qwen3-8b": ("Qwen3ForCausalLM", dict(QWEN, model_type="qwen3", hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8)),
    "qwen3-30b-a3b": ("Qwen3MoeForCausalLM", dict(QWEN, model_type="qwen3_moe", hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48, num_key_value_heads=4, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])),
    "qwen3.5-9b": ("Qwen3_5ForCausalLM", dict(model_type="qwen3_5", text_config=dict(model_type="qwen3_5_text", mamba_ssm_dtype="float32", rope_parameters=dict(rope_type="default", rope_theta=1e7, partial_rotary_factor=0.25)))),
    "gpt-oss-20b": ("GptOssForCausalLM", dict(model_type="gpt_oss", hidden_size=2880, intermediate_size=2880, num_hidden_layers=24, num_local_experts=32)),
    "gemma3-12b": ("Gemma3ForCausalLM", dict(model_type="gemma3_text", vocab_size=262208, hidden_size=3840, intermediate_size=15360, num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=8, head_dim=256, sliding_window=1024, rope_scaling=dict(rope_type="linear", factor=8.0))),
}
parser = argparse.ArgumentParser()
parser.add_argument("--shape", choices=SHAPES, default="qwen3-8b")
parser.add_argument("--step", action="append", help="prompts x completions, such as 8x8; may be repeated")
arguments = parser.parse_args()

# vLLM registers Qwen3.5 with its images alone; the text model needs only what tells it the size of its states.
whole = qwen3_5.Qwen3_5ForConditionalGeneration
states = {name: member for name, member in vars(whole).items() if name.startswith("get_mamba_state")}
ModelRegistry.register_model("Qwen3_5ForCausalLM", type("Qwen3_5ForCausalLM", (qwen3_5.Qwen3_5ForCausalLM, IsHybrid), states))
MODELS_CONFIG_MAP["Qwen3_5ForCausalLM"] = MODELS_CONFIG_MAP["Qwen3_5ForConditionalGeneration"]

architecture, config = SHAPES[arguments.shape]
folder = tempfile.mkdtemp()
with open(f"{folder}/config.json", "w") as file:
    json.dump(dict(config, architectures=[architecture], torch_dtype="bfloat16"), file)
start = time.time()
model = LLM(model=folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=1024, gpu_memory_utilization=0.9, max_num_seqs=64, disable_log_stats=True, **({"gdn_prefill_backend": "triton"} if arguments.shape == "qwen3.5-9b" else {}))
print(json.dumps({"peer": "vllm", "shape": arguments.shape, "start_seconds": round(time.time() - start, 1)}), flush=True)
random.seed(0)
for step in arguments.step or ["8x8"]:
    prompts, group = map(int, step.split("x"))
    params = SamplingParams(n=group, temperature=1.0, max_tokens=64, ignore_eos=True, detokenize=False)
    seconds = []
    for _ in range(4):
        rows = [{"prompt_token_ids": [random.randint(100, 30000) for _ in range(100)]} for _ in range(prompts)]
        start = time.time()
        answers = model.generate(rows, params, use_tqdm=False)
        seconds.append(time.time() - start)
        assert sum(len(one.token_ids) for answer in answers for one in answer.outputs) == prompts * group * 64
    print(json.dumps({"step": step, "rollout_seconds": round(statistics.median(seconds[1:]), 3), "all": [round(one, 3) for one in seconds]}), flush=True)
