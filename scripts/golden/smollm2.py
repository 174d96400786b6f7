#!/usr/bin/env python3
"""Token ids and log-probs of SmolLM2-135M-Instruct, computed by transformers from the GGUF file on the CPU in float32.

    python3 scripts/golden/smollm2.py FILE.gguf OUTDIR     (FILE.gguf: what scripts/real-models prints; ours came from OUTDIR = tests/parity)

Writes OUTDIR/smollm2.json: of each case `text`, or `messages` through the file's chat template; its `token_ids` with the file's tokenizer; and the
log-probability of each token after the first. transformers reads weights, tokenizer and template from the file itself. Needs torch, transformers, gguf and
accelerate (written with 2.11, 5.17, 0.19 and 1.15); no network.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

RIGHTS = "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood."
# The first texts are the first article of the Universal Declaration of Human Rights.
CASES = [
    {"text": RIGHTS},
    {"text": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. 人人生而自由,在尊严和权利上一律平等。"},
    {"text": 'def invoice(total=1234.50):\n    """Grüße aus Köln"""\n\treturn {"total": total, "paid": None}  # 42 %\r\n\n\n'},
    {"messages": [{"role": "user", "content": "Grüße aus Köln"}]},
    {"messages": [{"role": "user", "content": "Are dogs real?"}, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": " And 12,345 cats? "}]},
    {"messages": [{"role": "system", "content": "Answer with JSON only."}, {"role": "user", "content": "Invoice 7 of Acme GmbH, 2024-05-17: 1,234.50 EUR"}]},
]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, name = os.path.split(os.path.abspath(sys.argv[1]))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager").eval()
    cases = []
    for case in CASES:
        if "text" in case:
            ids = tokenizer(case["text"], add_special_tokens=False).input_ids
        else:
            ids = tokenizer.apply_chat_template(case["messages"], add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        after = [round(log_probs[position, token].item(), 6) for position, token in enumerate(ids[1:])]
        cases.append({**case, "token_ids": ids, "log_probs": after})
    path = os.path.join(sys.argv[2], "smollm2.json")
    with open(path, "w", encoding="utf-8") as file:
        versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
        # One case a line.
        lines = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in cases)
        file.write('{\n "made_by": "scripts/golden/smollm2.py",\n "versions": %s,\n "cases": [\n  %s\n ]\n}\n' % (json.dumps(versions), lines))
    print(f"{path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
