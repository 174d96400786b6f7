"""Seconds a GRPO step in TRL, for comparison with `grpo-tui-lab bench gpu` and `scripts/gpu-scaling.py`: random weights of a Qwen3 shape, rank-16 adapters on all linear layers.

    python3 scripts/trl-bench.py --shape qwen3-8b --step 8x8 --step 32x8
    accelerate launch --num_processes 2 scripts/trl-bench.py --step 16x8      (two GPUs; the prompts are those of both)

The work is that of our bench: prompts of 100 random tokens, exactly 64 new tokens each (no stop token), random rewards. Needs torch, transformers, trl and peft;
says so and exits with 77 where one is missing. One JSON line a step shape; the first of the timed steps is dropped, the median of the others told.
"""
import argparse, json, os, random, statistics, sys, tempfile, time

if "WORLD_SIZE" not in os.environ:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one process is for one GPU
try:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
except ImportError as missing:
    print(f"not measured: {missing}", file=sys.stderr)
    sys.exit(77)

SHAPES = {
    "qwen3-8b": dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8),
    "qwen3-0.6b": dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, tie_word_embeddings=True),
}
parser = argparse.ArgumentParser()
parser.add_argument("--shape", choices=SHAPES, default="qwen3-8b")
parser.add_argument("--step", action="append", help="prompts x completions, such as 8x8; may be repeated")
parser.add_argument("--prompt-tokens", type=int, default=100)
parser.add_argument("--new-tokens", type=int, default=64)
parser.add_argument("--timed-steps", type=int, default=3)
parser.add_argument("--checkpointing", action="store_true")
arguments = parser.parse_args()
gpus, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
torch.cuda.set_device(rank)


def byte_tokenizer():
    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=alphabet | {"<end>": 256, "<pad>": 257}, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", pad_token="<pad>", padding_side="left")


class Clock(TrainerCallback):
    """Seconds of each step, the device's work included."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        torch.cuda.synchronize()
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def measure(prompts, completions):
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPES[arguments.shape], head_dim=128, vocab_size=151936, max_position_embeddings=40960, rope_theta=1e6, eos_token_id=256, pad_token_id=257))
        torch.set_default_dtype(torch.float32)
    # The stop token can never be drawn, so that every completion has its full length.
    model.generation_config.suppress_tokens = [256]
    letters = random.Random(0)
    micro_batch = min(16, prompts * completions // gpus)
    text = lambda: "".join(letters.choice("abcdefghijklmnop 0123456789,.:") for _ in range(arguments.prompt_tokens))
    steps = arguments.timed_steps + 1
    clock, generating = Clock(), []
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [letters.choice([0.0, 0.5, 1.0]) for _ in completions],
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(), max_steps=steps, num_generations=completions, max_completion_length=arguments.new_tokens,
            per_device_train_batch_size=micro_batch, gradient_accumulation_steps=prompts * completions // gpus // micro_batch,
            temperature=1.0, beta=0.0, bf16=True, gradient_checkpointing=arguments.checkpointing, learning_rate=1e-5, loss_type="grpo",
            logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": text()} for _ in range(prompts * (steps + 1))]),
        processing_class=byte_tokenizer(),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    generate = trainer._generate

    def timed(*positional, **named):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = generate(*positional, **named)
        torch.cuda.synchronize()
        generating.append(time.perf_counter() - start)
        return result

    trainer._generate = timed
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    if rank:
        return
    print(json.dumps({
        "peer": "trl", "gpus": gpus, "shape": arguments.shape, "step": f"{prompts}x{completions}", "checkpointing": arguments.checkpointing,
        "step_seconds": statistics.median(clock.seconds[1:]), "generate_seconds": statistics.median(generating[1:]), "all_steps": clock.seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }), flush=True)


for step in arguments.step or ["8x8"]:
    measure(*map(int, step.split("x")))
