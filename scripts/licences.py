"""Prints the licences of every crate that is part of the program: python3 scripts/licences.py [--features cuda]. The arguments are cargo's."""

import json
import pathlib
import re
import subprocess
import sys


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, *sys.argv[1:]], check=True, capture_output=True, text=True).stdout


CUDA = """NVIDIA CUDA runtime (static part)
This program contains NVIDIA's libcudart_static, redistributed under the CUDA Toolkit End User License Agreement, Attachment A:
https://docs.nvidia.com/cuda/eula/. Other libraries of NVIDIA are not part of it.

libstdc++, libgcc
GNU General Public License 3 with the GCC Runtime Library Exception 3.1: https://www.gnu.org/licenses/gcc-exception-3.1.html
"""


def linked():
    """The crates that the program is linked from: neither build scripts' nor tests', nor what macros are made of."""
    tree = cargo("tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines()}
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    found = [package for package in packages if (package["name"], "v" + package["version"]) in wanted and package["source"]]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    names = re.compile(r"(licen[sc]e|copying|notice|unlicense|copyright)([-._].*)?", re.IGNORECASE)
    # Also deeper: C sources that a crate brings along have licences of their own.
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and names.fullmatch(path.name)]
    return [path.read_text(errors="replace").strip() for path in files]


if __name__ == "__main__":
    packages, numbers = linked(), {}
    print(f"grpo-tui is made with these {len(packages)} crates; the texts of their licences follow, each once, by number.")
    print("Where a crate has none, the standard text is that of LICENSE-MIT or LICENSE-APACHE here.\n")
    for package in packages:
        mine = [f"[{numbers.setdefault(text, len(numbers) + 1)}]" for text in texts(package)]
        where = " ".join(mine) or f"the standard text, by {', '.join(package['authors']) or package['repository']}"
        print(f"{package['name']} {package['version']}: {package['license']}; {where}")
    if "cuda" in " ".join(sys.argv[1:]):
        print("\n" + CUDA)
    for text, number in numbers.items():
        print(f"\n{'=' * 100}\n[{number}]\n{text}")
