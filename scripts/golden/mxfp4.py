#!/usr/bin/env python3
"""A tensor of experts in MXFP4, and its numbers in bfloat16 by transformers' `convert_moe_packed_tensors`.

    python3 scripts/golden/mxfp4.py OUTFILE        (tests/parity/mxfp4.safetensors came from here)

Every byte of codes is in it, and every scale up to 252, beyond which numbers may be infinite. Needs torch and transformers (written with 2.15 and 5.24). The same
versions write the same bytes.
"""

import sys

import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

EXPERTS, OUTPUTS, BLOCKS = 2, 43, 3


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    generator = torch.Generator().manual_seed(1)
    scales = (torch.arange(EXPERTS * OUTPUTS * BLOCKS) % 253).to(torch.uint8)
    scales = scales[torch.randperm(len(scales), generator=generator)].reshape(EXPERTS, OUTPUTS, BLOCKS)
    codes = (torch.arange(scales.numel() * 16) % 256).to(torch.uint8)
    blocks = codes[torch.randperm(len(codes), generator=generator)].reshape(EXPERTS, OUTPUTS, BLOCKS, 16)
    numbers = convert_moe_packed_tensors(blocks, scales)
    assert numbers.dtype == torch.bfloat16 and torch.isfinite(numbers).all()
    name = "model.layers.0.mlp.experts.down_proj"
    save_file({name + "_blocks": blocks, name + "_scales": scales, "expected": numbers}, sys.argv[1])


if __name__ == "__main__":
    main()
