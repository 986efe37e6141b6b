"""Trains a small transformer of PyTorch on a token cache: a data set goes in, next tokens come out.

    python examples/train_on_cache.py CACHE [--steps N] [--batch N] [--workers N]

CACHE is a token cache; where there is none, the bundled pictures are cached there first, with the bundled
tokenizer. It prints the loss in nats a token: what to know is that it falls.
"""

import argparse
import itertools
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import alitok


class Model(nn.Module):
    """A decoder over [class, tokens…] with learned positions."""

    def __init__(self, codes, classes, length, width=128, layers=2, heads=4):
        super().__init__()
        self.codes = codes
        self.embedding = nn.Embedding(codes + classes, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codes)

    def forward(self, tokens, labels):
        """Logits of every token, from the class and those before it."""
        ids = torch.cat([labels[:, None] + self.codes, tokens[:, :-1]], dim=1)
        hidden = self.embedding(ids) + self.position
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.head(self.norm(self.blocks(hidden, mask=mask, is_causal=True)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.cache.exists():
        cache = alitok.TokenCache(options.cache)
    else:
        cache = alitok.TokenCache.build("bundled:heldout", alitok.load(), options.cache)

    torch.manual_seed(0)
    dataset = alitok.torch.TokenCacheDataset(cache, seed=1)
    loader = DataLoader(
        dataset,
        options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        collate_fn=alitok.torch.collate,
    )
    model = Model(cache.codes, len(cache.classes), cache.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for epoch in itertools.count():
        dataset.set_epoch(epoch)
        for tokens, labels in loader:
            logits = model(tokens, labels)
            loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % 10 == 0 or len(losses) == 1:
                print(f"step {len(losses)}: {losses[-1]:.3f} nats a token", flush=True)
            if len(losses) == options.steps:
                return losses


if __name__ == "__main__":
    main()
