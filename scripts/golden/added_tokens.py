#!/usr/bin/env python3
"""Tokens that only the files beside tokenizer.json name, as transformers' AutoTokenizer reads them.

    python3 scripts/golden/added_tokens.py OUTDIR     (writes OUTDIR/added_tokens.json; ours came from OUTDIR = tests/parity)

The tokenizer is a small BPE of bytes. Each case holds the files beside it, what a template that prints the variables makes of one message, and the token ids of some texts. Needs
transformers (written with 5.24); no torch, no network.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

TEMPLATE = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ audio_token }}|{{ messages[0].content }}"
TEXTS = ["<|a|>x<|b|> y</s>[PAD]z<|im_end|>", " <|a|> x", "x<|b|>y", "word words", "<img>Acme", "<|im_start|>"]
TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def token(content, **rules):
    return {"content": content, **TOKEN, **rules}


def base():
    """A BPE of bytes: `</s>` and `<|im_end|>` are in the vocabulary, and only the last is an added token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    for word in ("</s>", "<|im_end|>", "<|im_start|>"):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>"])
    return json.loads(tokenizer.to_str())


def decoder(*tokens):
    return {str(300 + number): one for number, one in enumerate(tokens)}


# name, files beside tokenizer.json
CASES = [
    ("none", {}),
    ("added_tokens_decoder", {"tokenizer_config.json": {"added_tokens_decoder": decoder(token("<|a|>"), token("<|b|>"))}}),
    ("of the vocabulary", {"tokenizer_config.json": {"added_tokens_decoder": decoder(token("<|im_start|>"), token("</s>", special=False))}}),
    ("rules", {"tokenizer_config.json": {"added_tokens_decoder": decoder(token("<|a|>", lstrip=True, rstrip=True), token("word", single_word=True))}}),
    ("other rules", {"tokenizer_config.json": {"added_tokens_decoder": {"257": token("<|im_end|>", lstrip=True, special=False)}}}),
    ("named", {"tokenizer_config.json": {"bos_token": "<|a|>", "eos_token": "</s>", "pad_token": {"__type": "AddedToken", **token("[PAD]")}}}),
    ("named by AddedToken", {"tokenizer_config.json": {"eos_token": {"__type": "AddedToken", **token("<|b|>", rstrip=True)}}}),
    ("additional_special_tokens", {"tokenizer_config.json": {"additional_special_tokens": ["<|a|>", "<img>"], "eos_token": "</s>"}}),
    ("extra_special_tokens, a list", {"tokenizer_config.json": {"extra_special_tokens": ["<|b|>", "<|a|>"]}}),
    ("extra_special_tokens, named", {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<img>", "audio_token": "<|a|>"}}}),
    ("a token of its own name", {"tokenizer_config.json": {"image_token": "<img>", "eos_token": "<|im_end|>"}}),
    ("special_tokens_map", {"special_tokens_map.json": {"eos_token": "</s>", "pad_token": token("[PAD]"), "additional_special_tokens": ["<|a|>"]}}),
    (
        "special_tokens_map over the configuration",
        {"tokenizer_config.json": {"eos_token": "<|im_end|>", "bos_token": "<|a|>"}, "special_tokens_map.json": {"eos_token": "<|b|>"}},
    ),
    (
        "special_tokens_map beside added_tokens_decoder",
        {
            "tokenizer_config.json": {"eos_token": "<|im_end|>", "added_tokens_decoder": decoder(token("<|a|>"))},
            "special_tokens_map.json": {"eos_token": "<|b|>"},
        },
    ),
    ("added_tokens.json", {"added_tokens.json": {"<|b|>": 301, "<|a|>": 300}, "tokenizer_config.json": {"eos_token": "<|b|>"}}),
    ("added_tokens.json, known", {"added_tokens.json": {"<|im_end|>": 257, "</s>": 256}}),
    (
        "added_tokens.json beside added_tokens_decoder",
        {"added_tokens.json": {"<|b|>": 301}, "tokenizer_config.json": {"added_tokens_decoder": decoder(token("<|a|>"))}},
    ),
    ("all", {
        "added_tokens.json": {"<img>": 300},
        "special_tokens_map.json": {"pad_token": "[PAD]", "additional_special_tokens": ["<|a|>", "<|b|>"]},
        "tokenizer_config.json": {"eos_token": "<|im_end|>", "image_token": "<img>"},
    }),
]


def case(name, files, tokenizer_json):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
        files = {**files, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **files.get("tokenizer_config.json", {})}}
        for file, content in {"tokenizer.json": tokenizer_json, **files}.items():
            (folder / file).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Acme"}], chat_template=TEMPLATE, tokenize=False)
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    return {"name": name, "files": files, "prompt": prompt, "token_ids": ids}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = [case(name, files, base()) for name, files in CASES]
    golden = {"transformers": transformers.__version__, "tokenizer.json": base(), "template": TEMPLATE, "texts": TEXTS, "cases": cases}
    path = pathlib.Path(sys.argv[1]) / "added_tokens.json"
    path.write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
