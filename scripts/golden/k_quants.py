"""Writes tests/parity/k_quants.txt: blocks that llama.cpp's own quantizer makes of 512 numbers, by type; `llama_cpp`'s environment of scripts/peers has it.

    target/peers/llama_cpp/bin/python scripts/golden/k_quants.py
"""
import array
import ctypes
import glob
import os
import struct

import xllamacpp

TYPES = {"Q4": (12, 144), "Q5": (13, 176), "Q6": (14, 210)}


def f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def numbers():
    state = 1
    for index in range(512):
        state = (state * 1664525 + 1013904223) % 2**32
        number = (state >> 8) / 2**24 - 0.5
        yield f32(f32(number * number) * number) * (8 if index % 37 == 0 else 1)


(library,) = glob.glob(os.path.dirname(xllamacpp.__file__) + "/*.so")
library = ctypes.CDLL(library)
library.ggml_quantize_chunk.restype = ctypes.c_size_t
source = array.array("f", numbers())
address, count = source.buffer_info()
with open("tests/parity/k_quants.txt", "w") as file:
    for name, (number, size) in TYPES.items():
        blocks = ctypes.create_string_buffer(size * count // 256)
        written = library.ggml_quantize_chunk(number, ctypes.c_void_p(address), blocks, *map(ctypes.c_int64, (0, 1, count)), None)
        assert written == len(blocks)
        file.write(f"{name} {blocks.raw.hex()}\n")
