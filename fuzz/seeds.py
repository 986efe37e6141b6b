"""Fills `fuzz/corpus` with the valid files that the tests read, so that fuzzing begins where readers get far.

    python3 fuzz/seeds.py [CACHE...]

CACHE is a folder that `alitok cache build` has written. Needs no package.
"""

import json
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
LARGEST = 100_000


def tensors(path):
    """The byte tensors of a safetensors file, by name."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        start, end = tensor["data_offsets"]
        yield name, content[8 + length + start : 8 + length + end]


def add(target, name, content):
    if len(content) <= LARGEST:
        folder = ROOT / "fuzz" / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("/", "_")).write_bytes(content)


def main():
    for file in ("decode", "odd_pictures"):
        for name, content in tensors(FIXTURES / f"{file}.safetensors"):
            if not name.endswith(".rgb"):
                add("image", name, content)
    for target, pattern in [
        ("tar", "data_sets/*.tar"),
        ("npz", "data_sets/*.npz"),
        ("parquet", "**/*.parquet"),
        ("checkpoint", "torch/*"),
    ]:
        for path in FIXTURES.glob(pattern):
            if path.is_file():
                add(target, path.name, path.read_bytes())
    # The first byte of a label file's input chooses its ending.
    add("labels", "table", b"\0image,label\n0.png,cat\na b.png,dog\nc/1.jpg,3\n")
    add("labels", "quoted", b'\0"0.png";"a ""b"""\n"a b.png";"c;d"\n"c/1.jpg";"e"\n')
    add("labels", "lines", b"\x011\n2\n1\n")
    add("labels", "map", b'\x02{"0.png": "cat", "a b.png": 1, "c/1.jpg": "dog"}')
    add("labels", "pairs", b'\x02{"labels": [["0.png", 0], ["a b.png", 1], ["c/1.jpg", 1]]}')
    add("labels", "metadata", b'\x03{"file_name": "0.png", "label": 0}\n{"file_name": "a b.png", "label": 1}\n')
    for cache in map(Path, sys.argv[1:]):
        for tokens in cache.glob("tokens-*.bin"):
            names = tokens.with_name(tokens.name.replace("tokens", "names")).with_suffix(".txt")
            add("cache", cache.name + tokens.stem, names.read_bytes() + b"\0" + tokens.read_bytes())


main()
