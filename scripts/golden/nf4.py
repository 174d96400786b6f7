#!/usr/bin/env python3
"""Matrices in NF4 as bitsandbytes stores them, and their numbers in bfloat16 by its CPU library.

    python3 scripts/golden/nf4.py OUTFILE        (tests/parity/nf4.safetensors came from here)

`weight` is quantized twice: with double quantization, in blocks of 64, and without, in blocks of 128. Codes are chosen as bitsandbytes/backends/default/ops.py does,
those of scales and all numbers by libbitsandbytes_cpu.so. Needs numpy and bitsandbytes (written with 2.4 and 0.50.2, unpacked: torch is not imported).
"""

import ctypes
import importlib.util
import json
import pathlib
import sys

import numpy as np

OUTPUTS, INPUTS = 40, 512
UP, GATE = (f"model.layers.0.mlp.{part}_proj.weight" for part in ("up", "gate"))
NUMBERS = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
     0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    np.float32,
)  # fmt: skip


def dynamic_map():
    """bitsandbytes.functional.create_dynamic_map(signed=True)."""
    numbers = [0.0, 1.0]
    for exponent in range(7):
        boundaries = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        means = (boundaries[:-1] + boundaries[1:]) / np.float32(2) * np.float32(10 ** (exponent - 6))
        numbers += [*means, *-means]
    return np.sort(np.array(numbers, np.float32))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def quantize(weight, block):
    """Codes, two a byte, and scales."""
    blocks = weight.reshape(-1, block)
    scales = np.abs(blocks).max(axis=1)
    middles = (NUMBERS[:-1] + NUMBERS[1:]) / np.float32(2)
    codes = np.searchsorted(middles, (blocks * (np.float32(1) / scales)[:, None]).reshape(-1), side="left").astype(np.uint8)
    return (codes[::2] << 4 | codes[1::2])[:, None], scales


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    package = pathlib.Path(importlib.util.find_spec("bitsandbytes").submodule_search_locations[0])
    library = ctypes.CDLL(str(package / "libbitsandbytes_cpu.so"))
    size = ctypes.c_longlong

    def numbers_of(codes, scales, block):
        numbers = np.empty((OUTPUTS, INPUTS), np.uint16)
        library.cdequantize_blockwise_cpu_nf4_bf16(pointer(codes), pointer(scales), pointer(numbers), size(block), size(OUTPUTS), size(INPUTS))
        return numbers

    generator = np.random.Generator(np.random.PCG64(1))
    weight = generator.standard_normal((OUTPUTS, INPUTS)).astype(np.float32) * 0.02 * np.exp(generator.standard_normal((OUTPUTS, 1))).astype(np.float32)
    weight = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)  # a bfloat16
    tensors = {"weight": ("BF16", (weight.view(np.uint32) >> 16).astype(np.uint16))}

    def state(name, block, **more):
        text = json.dumps({"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": [OUTPUTS, INPUTS], **more})
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", np.frombuffer(text.encode(), np.uint8))
        tensors[f"{name}.quant_map"] = ("F32", NUMBERS)

    codes, scales = quantize(weight, 64)
    offset = np.float32(scales.astype(np.float64).mean())
    distances, table = scales - offset, dynamic_map()
    scale_codes, group_scales = np.empty(len(scales), np.uint8), np.empty(-(-len(scales) // 256), np.float32)
    library.cquantize_blockwise_cpu_fp32(pointer(table), pointer(distances), pointer(group_scales), pointer(scale_codes), size(256), size(len(scales)))
    restored = np.empty_like(scales)
    library.cdequantize_blockwise_cpu_fp32(pointer(table), pointer(scale_codes), pointer(group_scales), pointer(restored), size(256), size(len(scales)))
    restored += offset
    state(UP, 64, nested_blocksize=256, nested_dtype="float32", nested_offset=float(offset))
    tensors |= {UP: ("U8", codes), f"{UP}.absmax": ("U8", scale_codes), f"{UP}.nested_absmax": ("F32", group_scales), f"{UP}.nested_quant_map": ("F32", table)}
    tensors["expected_up"] = ("BF16", numbers_of(codes, restored, 64))

    codes, scales = quantize(weight, 128)
    state(GATE, 128)
    tensors |= {GATE: ("U8", codes), f"{GATE}.absmax": ("F32", scales), "expected_gate": ("BF16", numbers_of(codes, scales, 128))}

    header, data = {}, b""
    for name, (kind, array) in sorted(tensors.items()):
        start, data = len(data), data + array.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    pathlib.Path(sys.argv[1]).write_bytes(len(text).to_bytes(8, "little") + text + data)


if __name__ == "__main__":
    main()
