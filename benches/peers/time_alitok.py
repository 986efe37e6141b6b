#!/usr/bin/env python3
"""Times the authors' PyTorch code on the CPU, with random weights, for `alitok bench --against`.

    git clone https://github.com/ali-vilab/alitok authors
    pip install torch einops
    python benches/peers/time_alitok.py authors generator --precision bf16 --batch 8 --steps 8 > theirs.json
    alitok bench generator --layout released --precision bf16 --batch 8 --steps 8 --against theirs.json

A step is what `ARModel.generate` does in its loop: both halves of guidance with the key-value cache,
softmax, and a draw. Only some are timed, at positions spread evenly over the sequence as `alitok bench
--steps` spreads them, each on a cache of random numbers of that length and the best of three tries;
their mean stands for all.
The keys of the object are those of `alitok bench --json`.
"""

import argparse
import json
import math
import pathlib
import resource
import statistics
import sys
import time


class Settings(dict):
    """Nested settings that are read as attributes, as the authors' code expects them."""

    __getattr__ = dict.__getitem__


SIZES = {"b": (768, 24), "l": (1024, 24), "xl": (1280, 32)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("repository", type=pathlib.Path, help="a clone of the authors' repository")
    parser.add_argument("part", choices=["generator", "tokenizer"])
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    return parser.parse_args()


def generator(options, torch):
    from modeling.ar import ARModel

    width, layers = SIZES[options.size]
    settings = Settings(
        model=Settings(
            vq_model=Settings(codebook_size=4096),
            generator=Settings(
                hidden_size=width, num_hidden_layers=layers, num_attention_heads=16,
                image_seq_len=273, condition_num_classes=1000,
                dropout=0.1, attn_drop=0.1, tok_dropout=0.1,
            ),
        )
    )
    model = ARModel(settings).eval().requires_grad_(False).to(options.dtype)
    length, rows = model.image_seq_len, 2 * options.batch
    condition = model.preprocess_condition(torch.arange(options.batch))
    both = torch.cat([condition, model.get_none_condition(condition)])
    head = width // 16

    def step(position):
        """The step that draws the token at `position`, at least 1: so many are in the cache."""
        for block in model.blocks:
            shape = (rows, 16, position, head)
            block.attn.k_cache = torch.randn(shape).to(options.dtype)
            block.attn.v_cache = torch.randn(shape).to(options.dtype)
        ids = torch.randint(4096, (options.batch, position))
        started = time.perf_counter()
        logits = model.forward_fn(torch.cat([ids, ids]), both, is_sampling=True)
        conditional, unconditional = logits[: options.batch], logits[options.batch :]
        scale = 1 + 15 * (1 - math.cos(math.pi * (position / length) ** 1.8)) / 2
        logits = (unconditional + (conditional - unconditional) * scale)[:, -1]
        torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)
        return time.perf_counter() - started

    model.enable_kv_cache()
    steps = options.steps
    positions = [max(1, (2 * index + 1) * length // (2 * steps)) for index in range(steps)]
    # Of three tries the best: the libraries below prepare themselves for each shape they meet.
    seconds = statistics.fmean(min(step(position) for _ in range(3)) for position in positions)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": length,
        "batch": options.batch,
        "steps_timed": steps,
        "ms_per_step": 1e3 * seconds,
        "seconds_per_image": seconds * length / options.batch,
        "images_per_second": options.batch / (seconds * length),
    }


def tokenizer(options, torch):
    from modeling.alitok import AliTok

    model = AliTok().eval().requires_grad_(False).to(options.dtype)
    pictures = torch.full((options.batch, 3, 256, 256), 0.5, dtype=options.dtype)
    tokens = torch.ones((options.batch, 273), dtype=torch.long)

    def median(work):
        work()
        times = []
        for _ in range(options.steps):
            started = time.perf_counter()
            work()
            times.append((time.perf_counter() - started) / options.batch)
        return statistics.median(times)

    encode = median(lambda: model.encoder(pictures, model.latent_tokens))

    def decoded():
        # As `decode_tokens`, whose codebook gives f32 to a decoder of another precision.
        codes = model.quantize.get_codebook_entry(tokens.reshape(-1))
        codes = codes.reshape(options.batch, 1, 273, -1).permute(0, 3, 1, 2)
        return model.decode(codes.contiguous().to(options.dtype))

    decode = median(decoded)
    return {
        "batch": options.batch,
        "encode_seconds_per_image": encode,
        "decode_seconds_per_image": decode,
        "images_per_second": 1 / (encode + decode),
    }


def main():
    options = arguments()
    if not (options.repository / "modeling" / "ar.py").is_file():
        sys.exit(f"{options.repository}: no `modeling/ar.py` there; give a clone of ali-vilab/alitok")
    import torch

    sys.path.insert(0, str(options.repository))
    options.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    torch.manual_seed(0)
    with torch.no_grad():
        figures = {"generator": generator, "tokenizer": tokenizer}[options.part](options, torch)
    figures |= {
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "framework": f"torch {torch.__version__}",
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
