#!/usr/bin/env python3
"""A small byte-level BPE that cuts text as Mistral's Tekken does, and the token ids that transformers gives texts by it:
tests/parity/tekken.json.

    python3 scripts/golden/tekken.py
    python3 scripts/golden/tekken.py TEKKEN.json FOLDER   (writes Mistral's own as tokenizer.json, and ids.json beside it,
                                                           to compare an export of a model with it by hand)

Needs transformers, the second form mistral-common, too; no network.
"""

import json
import pathlib
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "1234567890 3.14 1,000,000 2024-05-17T12:30:00Z ½ ٣٤٥ １２３ Ⅷ",
    "  two  three   four\ttab\n\n\n  \r\n\t x \u00a0y\u3000z \n",
    "emoji 🦀🎉 👩‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 ☕️ 1️⃣",
    "中文分词测试，日本語のテキスト、한국어 문장입니다。ภาษาไทย العربية עברית",
    "fn main() { let x: Vec<_> = (0..10).map(|i| i*i).collect(); // sum\n    println!(\"{x:?}\\n\"); }",
    "def f(a, b=None):\n    return {'k': [1, 2.5e-3], \"s\": a//b}\n",
    "camelCaseWord HTTPServer XMLHttpRequest iPhone McDonald's don't I'LL we've",
    "Größe STRASSE Ärger naïve café ÉCOLE École ŁÓDŹ Łódź ΑΒΓ αβγ Привет МОСКВА МоскВа ǅ",
    "Ω≈ç√∫˜µ≤≥÷ ﬁ ß ẞ İstanbul ıI",
    "<s>[INST] Hi [/INST]</s> https://example.org/a/b?c=d&e=f#g path/to/file.rs //// /\n/",
    '{"vendor": "Acme", "total": [12.50, -3], "note": null}',
    "",
    " ",
    "\n",
    "'s",
]
# llama.cpp cuts words at combining marks, which Mistral does not.
MARKED = ["हिन्दी नमस्ते", "e\u0301cole a\u0308rger"]


def small():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((TEXTS + MARKED) * 2, trainer)
    return tokenizer.to_str()


def ids(tokenizer_json):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_json))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    return [{"text": text, "ids": encode(text), "has_marks": text in MARKED} for text in TEXTS + MARKED]


if len(sys.argv) > 1:
    from transformers.integrations.mistral import convert_tekken_tokenizer

    folder = pathlib.Path(sys.argv[2])
    convert_tekken_tokenizer(sys.argv[1]).save_pretrained(folder)
    found = ids((folder / "tokenizer.json").read_text())
    (folder / "ids.json").write_text(json.dumps(found))
else:
    out = pathlib.Path(__file__).parents[2] / "tests/parity/tekken.json"
    tokenizer = small()
    out.write_text(json.dumps({"tokenizer": json.loads(tokenizer), "texts": ids(tokenizer)}, ensure_ascii=False) + "\n")
