#!/usr/bin/env python3
"""Next-token probabilities after sampling parameters, by transformers' own logits processors and warpers.

    python3 scripts/golden/logits_processors.py tests/parity        (writes tests/parity/logits_processors.json)

The order is that of `GenerationMixin._get_logits_processor`, in float64. Needs torch and transformers (written with 2.15.0 and 5.24.0), no network.
The same versions write the same bytes.
"""

import json
import pathlib
import random
import sys

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0}
CHANGES = [
    {},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 1000},
    {"top_k": 5, "temperature": 0.5},
    {"min_p": 0.05},
    {"min_p": 0.3, "temperature": 1.7},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"repetition_penalty": 2.0, "temperature": 0.6},
    {"min_tokens": 4},
    {"min_tokens": 3},
    {"top_k": 6, "top_p": 0.7},
    {"top_p": 0.8, "min_p": 0.15},
    {"top_k": 8, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.2, "temperature": 0.8, "min_tokens": 9},
]


def probabilities(logits, case):
    processors = LogitsProcessorList()
    if case["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(penalty=case["repetition_penalty"]))
    if case["min_tokens"] > 0:
        processors.append(MinNewTokensLengthLogitsProcessor(len(case["prompt"]), case["min_tokens"], case["stop_ids"]))
    if case["temperature"] != 1.0:
        processors.append(TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"] > 0:
        processors.append(TopKLogitsWarper(top_k=case["top_k"]))
    if case["top_p"] < 1.0:
        processors.append(TopPLogitsWarper(top_p=case["top_p"]))
    if case["min_p"] > 0:
        processors.append(MinPLogitsWarper(min_p=case["min_p"]))
    ids = torch.tensor([case["prompt"] + case["completion"]])
    return torch.softmax(processors(ids, logits[None]), dim=-1)[0].tolist()


def main(folder):
    random.seed(20260701)
    cases = []
    for size in (12, 40):
        for change in CHANGES:
            logits = torch.tensor([random.gauss(0.0, 2.0) for _ in range(size)], dtype=torch.float32)
            # Equal logits: transformers keeps all that are as likely as the last of the top k.
            if "top_p" not in change:
                logits[7] = logits[2] = logits.sort(descending=True).values[2]
            context = {name: [random.randrange(size) for _ in range(count)] for name, count in (("prompt", 5), ("completion", 3))}
            case = PLAIN | change | context | {"stop_ids": [1, size - 1], "logits": logits.tolist()}
            case["probabilities"] = probabilities(logits.double(), case)
            cases.append(case)
    lines = ",\n".join(json.dumps(case) for case in cases)
    pathlib.Path(folder, "logits_processors.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
