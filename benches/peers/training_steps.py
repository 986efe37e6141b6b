"""Training steps in PyTorch, eager and in single precision, of the same shapes as
crates/training/benches/steps.rs: seconds a step and peak memory as one JSON object a line.

    pip install torch==2.15.0
    python benches/peers/training_steps.py mini-tokenizer
    python benches/peers/training_steps.py mini-generator
    python benches/peers/training_steps.py b-generator
    python benches/peers/training_steps.py vit-blocks

Each contestant should have a process of its own, since memory is that of the process. Pictures and
tokens are noise and lie ready in memory, so nothing but the step is timed. PyTorch gets its fastest
operations: scaled_dot_product_attention, cross_entropy, and AdamW's fused step.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A block of a vision transformer: LayerNorm, biases, exact GELU."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, causal=False):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PixelHead(nn.Module):
    def __init__(self, width, values):
        super().__init__()
        self.patch, self.color = nn.Linear(width, values), nn.Linear(3, 3)

    def forward(self, x):
        batch, count, _ = x.shape
        return self.color(self.patch(x).view(batch, -1, 3)).sigmoid().view(batch, count, -1)


class Tokenizer(nn.Module):
    """Stage 1 of recipe `mini`: 64 pixels, patches of 8, 8 prefix tokens, 512 codes of 16."""

    def __init__(self, width=192, patch=8, side=64, prefix=8, codes=512, size=16):
        super().__init__()
        self.patch, grid = patch, (side // patch) ** 2
        self.grid, self.prefix, self.columns, length = grid, prefix, side // patch, grid + prefix
        table = lambda rows: nn.Parameter(torch.randn(rows, width) * width**-0.5)
        self.embed, self.positions = nn.Linear(3 * patch**2, width), table(grid)
        self.latents, self.latent_positions = table(length), table(length)
        self.encoder_in, self.encoder_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.encoder = nn.ModuleList(Block(width, 3) for _ in range(4))
        self.to_code = nn.Linear(width, size)
        self.codebook = nn.Parameter(torch.randn(codes, size) * 0.02)
        self.from_code, self.leading = nn.Linear(size, width), table(1)
        self.decoder_positions = table(1 + length)
        self.decoder_in, self.decoder_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.decoder = nn.ModuleList(Block(width, 3) for _ in range(6))
        self.head = PixelHead(width, 3 * patch**2)
        self.prefix_head = PixelHead(width, 3 * patch**2)
        self.register_buffer("usage", torch.zeros(codes))

    def distances(self, features):
        code_norms = self.codebook.square().sum(1)
        return features.square().sum(1, keepdim=True) + code_norms - 2 * features @ self.codebook.T

    def forward(self, images):
        batch, p, columns = len(images), self.patch, self.columns
        patches = images.view(batch, 3, columns, p, columns, p)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, self.grid, -1)
        latents = (self.latents + self.latent_positions).expand(batch, -1, -1)
        x = self.encoder_in(torch.cat([self.embed(patches) + self.positions, latents], 1))
        for block in self.encoder:
            x = block(x)
        features = self.to_code(self.encoder_out(x[:, self.grid :]))
        flat = features.reshape(-1, features.shape[-1])
        with torch.no_grad():
            indices = self.distances(flat).argmin(1)
        codes = self.codebook[indices].view_as(features)
        loss = 0.25 * F.mse_loss(features, codes.detach()) + F.mse_loss(codes, features.detach())
        codes = features + (codes - features).detach()
        x = torch.cat([self.leading.expand(batch, -1, -1), self.from_code(codes)], 1)
        x = self.decoder_in(x + self.decoder_positions)
        for block in self.decoder:
            x = block(x, causal=True)
        x = self.decoder_out(x[:, 1:])
        prefix = self.prefix_head(x[:, : self.prefix])
        loss = loss + F.mse_loss(prefix[:, -columns:], patches[:, :columns])
        loss = loss + F.mse_loss(self.head(x[:, self.prefix :]), patches)
        return loss, flat.detach(), indices

    @torch.no_grad()
    def move_codebook(self, features, indices, decay=0.9):
        codes = len(self.codebook)
        frequency = torch.bincount(indices, minlength=codes) / len(indices)
        self.usage.mul_(decay).add_(frequency, alpha=1 - decay)
        errors = self.distances(features).min(1).values.clamp(min=0)
        anchors = features[torch.multinomial(errors, codes, replacement=True)]
        pull = torch.exp(-self.usage * codes * 10 / (1 - decay) - 1e-3).unsqueeze(1)
        self.codebook.mul_(1 - pull).add_(anchors * pull)


class GeneratorBlock(nn.Module):
    """RMSNorm, QK-norm, rotary positions, SwiGLU, dropout."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        hidden = -(-(8 * width // 3) // 256) * 256
        self.heads, self.head, self.dropout = heads, width // heads, dropout
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.query_norm, self.key_norm = nn.RMSNorm(self.head, 1e-5), nn.RMSNorm(self.head, 1e-5)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def rotate(self, x, cosines, sines):
        pairs = x.unflatten(-1, (-1, 2))
        a, b = pairs.unbind(-1)
        return torch.stack([a * cosines - b * sines, b * cosines + a * sines], -1).flatten(-2)

    def forward(self, x, cosines, sines):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, self.head)
        q, k, v = qkv.unbind(2)
        q = self.rotate(self.query_norm(q).transpose(1, 2), cosines, sines)
        k = self.rotate(self.key_norm(k).transpose(1, 2), cosines, sines)
        mixed = F.scaled_dot_product_attention(
            q, k, v.transpose(1, 2), dropout_p=self.dropout, is_causal=True
        )
        mixed = self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + F.dropout(mixed, self.dropout)
        h = self.norm2(x)
        return x + F.dropout(self.down(F.silu(self.gate(h)) * self.up(h)), self.dropout)


class Generator(nn.Module):
    def __init__(self, width, layers, heads, codes, classes, length, dropout=0.1):
        super().__init__()
        self.embedding = nn.Embedding(codes + classes + 2, width)
        self.blocks = nn.ModuleList(GeneratorBlock(width, heads, dropout) for _ in range(layers))
        self.norm, self.output = nn.RMSNorm(width, 1e-5), nn.Linear(width, codes)
        self.dropout, half = dropout, width // heads // 2
        angles = torch.arange(length)[:, None] * 10000 ** (-torch.arange(half) / half)
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, ids, targets):
        x = F.dropout(self.embedding(ids), self.dropout)
        for block in self.blocks:
            x = block(x, self.cosines, self.sines)
        logits = self.output(self.norm(x)).flatten(0, 1)
        accuracy = (logits.detach().argmax(1) == targets.flatten()).float().mean()
        return F.cross_entropy(logits, targets.flatten()), accuracy


def tokenizer_step(batch=16):
    model = Tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.99), weight_decay=0.01, fused=True)

    def step():
        images = torch.rand(batch, 3, 64, 64)
        loss, features, indices = model(images)
        optimizer.zero_grad()
        loss.backward()
        model.move_codebook(features, indices)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def generator_step(width, layers, heads, codes, classes, length, batch):
    model = Generator(width, layers, heads, codes, classes, length)
    decayed = [p for p in model.parameters() if p.ndim >= 2 and p is not model.embedding.weight]
    others = [p for p in model.parameters() if p.ndim < 2 or p is model.embedding.weight]
    groups = [{"params": decayed, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 1e-4, (0.9, 0.96), fused=True)

    def step():
        tokens = torch.randint(codes, (batch, length))
        classes_of = torch.randint(classes, (batch, 1)) + codes + 1
        loss, accuracy = model(torch.cat([classes_of, tokens[:, :-1]], 1), tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item(), accuracy.item()

    return step


def vit_step():
    blocks = nn.Sequential(Block(768, 12), Block(768, 12))
    x = torch.randn(4, 529, 768, requires_grad=True)

    def step():
        x.grad = None
        blocks.zero_grad()
        blocks(x).square().mean().backward()

    return step


CONTESTANTS = {
    "mini-tokenizer": (tokenizer_step, 30),
    "mini-generator": (lambda: generator_step(256, 5, 4, 512, 9, 72, 32), 30),
    "b-generator": (lambda: generator_step(768, 24, 16, 4096, 1000, 272, 2), 3),
    "vit-blocks": (vit_step, 6),
}

for name in sys.argv[1:]:
    make, count = CONTESTANTS[name]
    step = make()
    step(), step()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    times.sort()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6
    result = {
        "name": name,
        "seconds": round(times[len(times) // 2], 4),
        "fastest": round(times[0], 4),
        "peak_megabytes": peak,
    }
    print(json.dumps(result), flush=True)
