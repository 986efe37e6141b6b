#!/usr/bin/env python3
"""Writes a model folder in the shape of AliTok-B with random weights, for measurements of speed.

    tools/random-model.py FOLDER

The tokenizer is the paper's at 256 pixels (ViT-B, two ViT-L), the generator has 24 layers of width 768; classes
are called 0 to 999. Speed does not depend on what weights say; the pictures are noise. Needs Python 3.9 and
nothing else.
"""

import json
import pathlib
import random
import struct
import sys

CODES, CLASSES, TOKEN = 4096, 1000, 32
PATCH, SIDE, LEADING = 16, 16, {"causal_decoder": 1, "bidirectional_decoder": 64}
TOKENS = SIDE * SIDE + SIDE
ENCODER = {"width": 768, "layers": 12, "heads": 12}
DECODER = {"width": 1024, "layers": 24, "heads": 16}
GENERATOR = {"width": 768, "layers": 24, "heads": 16}


def linear(name, rows, columns, bias=True):
    """Shapes of a linear layer."""
    return {f"{name}.weight": [rows, columns], **({f"{name}.bias": [rows]} if bias else {})}


def norm(name, width, bias=True):
    """Shapes of a normalization."""
    return {f"{name}.weight": [width], **({f"{name}.bias": [width]} if bias else {})}


def transformer(name, width, layers, **_):
    """Shapes of the tokenizer's blocks."""
    shapes = {}
    for layer in range(layers):
        block = f"{name}.blocks.{layer}"
        shapes |= norm(f"{block}.attention_norm", width) | norm(f"{block}.feed_forward_norm", width)
        shapes |= linear(f"{block}.attention.query_key_value", 3 * width, width)
        shapes |= linear(f"{block}.attention.projection", width, width)
        shapes |= linear(f"{block}.feed_forward.up", 4 * width, width)
        shapes |= linear(f"{block}.feed_forward.down", width, 4 * width)
    return shapes | norm(f"{name}.input_norm", width) | norm(f"{name}.output_norm", width)


def tokenizer():
    """Shapes of the tokenizer."""
    width, pixels = ENCODER["width"], 3 * PATCH * PATCH
    shapes = transformer("encoder", **ENCODER) | {"quantizer.codebook": [CODES, TOKEN]}
    shapes |= {f"encoder.latents.{part}": [TOKENS, width] for part in ("positions", "tokens")}
    shapes |= {"encoder.positions": [SIDE * SIDE, width]}
    shapes |= linear("encoder.patch_embedding", width, pixels) | linear("encoder.to_code", TOKEN, width)
    for name, leading in LEADING.items():
        width = DECODER["width"]
        shapes |= transformer(name, **DECODER) | linear(f"{name}.embedding", width, TOKEN)
        shapes |= {f"{name}.leading": [leading, width], f"{name}.positions": [leading + TOKENS, width]}
        for head in ("head", "prefix_head") if name == "causal_decoder" else ("head",):
            shapes |= linear(f"{name}.{head}.patch", pixels, width) | linear(f"{name}.{head}.color", 3, 3)
    return shapes


def generator():
    """Shapes of the generator."""
    width, heads = GENERATOR["width"], GENERATOR["heads"]
    hidden = 8 * width // 3
    # One condition more stands for no class, one number is unused, as in the released weights.
    shapes = {"embedding.weight": [CODES + CLASSES + 2, width]} | norm("norm", width, bias=False)
    shapes |= linear("output", CODES, width)
    for layer in range(GENERATOR["layers"]):
        block = f"blocks.{layer}"
        for part in ("attention_norm", "feed_forward_norm"):
            shapes |= norm(f"{block}.{part}", width, bias=False)
        for part in ("query_norm", "key_norm"):
            shapes |= norm(f"{block}.attention.{part}", width // heads, bias=False)
        shapes |= linear(f"{block}.attention.query_key_value", 3 * width, width)
        shapes |= linear(f"{block}.attention.projection", width, width)
        for part in ("gate", "up"):
            shapes |= linear(f"{block}.feed_forward.{part}", hidden, width, bias=False)
        shapes |= linear(f"{block}.feed_forward.down", width, hidden, bias=False)
    return shapes


def write(path, shapes):
    """Writes tensors in bf16: ones for the weights of norms, else small random numbers."""
    noise = random.Random(0)
    numbers = (noise.uniform(-0.035, 0.035) for _ in range(1_000_003))
    # The upper half of a number's bits is its bf16.
    block = b"".join(struct.pack("<f", number)[2:] for number in numbers)
    header, offset = {}, 0
    for name, shape in sorted(shapes.items()):
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            size = end - begin
            if name.endswith("norm.weight"):
                file.write(b"\x80\x3f" * (size // 2))
                continue
            start = 2 * (begin // 2 % 1_000_003)
            repeated = block[start:] + block * (size // len(block) + 1)
            file.write(repeated[:size])


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    decoders = {
        name: {"transformer": DECODER, "leading": leading, "prefix_head": name == "causal_decoder"}
        for name, leading in LEADING.items()
    }
    size = PATCH * SIDE
    config = {
        "format": 1,
        "tokenizer": {
            "image": {"height": size, "width": size},
            "patch": PATCH,
            "prefix": SIDE,
            "codes": CODES,
            "token_size": TOKEN,
            "encoder_input": "patches_and_latents",
            "encoder": ENCODER,
            **decoders,
        },
        "generator": {
            "layout": {"prefix": SIDE, "rows": SIDE, "columns": SIDE},
            "codes": CODES,
            "classes": CLASSES,
            **GENERATOR,
        },
        "sampling": {"guidance": 3.0, "guidance_power": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "classes.json").write_text(json.dumps([str(label) for label in range(CLASSES)]) + "\n")
    write(folder / "tokenizer.safetensors", tokenizer())
    write(folder / "generator.safetensors", generator())


if __name__ == "__main__":
    main()
