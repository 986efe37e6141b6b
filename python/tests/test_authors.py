"""The authors' own modules, loaded from `state_dict`, say what our models say.

It needs a clone of https://github.com/ali-vilab/alitok, which ALITOK_AUTHORS names, PyTorch and einops.
"""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import FIXTURES

import alitok

TINY = FIXTURES / "released_tiny"
# Two numbers that differ by rounding alone; logits of these models are up to some tens.
CLOSE = 2e-4


class Settings(dict):
    """Nested settings that are read as attributes, as their code expects them."""

    __getattr__ = dict.__getitem__


@pytest.fixture(scope="module")
def authors():
    clone = os.environ.get("ALITOK_AUTHORS")
    if not clone:
        pytest.skip("ALITOK_AUTHORS names no clone of the authors' repository (ali-vilab/alitok)")
    if not (Path(clone) / "modeling" / "ar.py").is_file():
        pytest.fail(f"ALITOK_AUTHORS: there is no modeling/ar.py in {clone}")
    pytest.importorskip("torch")
    pytest.importorskip("einops")
    sys.path.insert(0, clone)
    yield Path(clone)
    sys.path.remove(clone)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    out = tmp_path_factory.mktemp("authors") / "model"
    return alitok.weights.import_(TINY / "tokenizer.pth", TINY / "generator.bin", out=out)


@pytest.fixture(scope="module")
def generator(authors, ours):
    from modeling.ar import ARModel

    config = ours.config["generator"]
    weights = alitok.state_dict(ours, "generator")
    settings = Settings(
        model=Settings(
            vq_model=Settings(codebook_size=config["codes"]),
            generator=Settings(
                hidden_size=config["width"],
                num_hidden_layers=config["layers"],
                num_attention_heads=config["heads"],
                image_seq_len=ours.length,
                condition_num_classes=config["classes"],
                dropout=0.0,
                attn_drop=0.0,
                tok_dropout=0.0,
            ),
        )
    )
    model = ARModel(settings)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not missing and not unknown
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(authors, ours):
    """Their tokenizer, whose sizes are numbers in its source, at the fixture's sizes."""
    source = (authors / "modeling" / "alitok.py").read_text("utf-8")
    encoder, decoder = source.index("class Encoder"), source.index("class Decoder")
    end = source.index("class VAutoencoder")
    parts = [source[:encoder], source[encoder:decoder], source[decoder:end], source[end:]]
    weights = alitok.state_dict(ours, "tokenizer")
    for place, name in ((1, "encoder"), (2, "decoder")):
        width = weights[f"{name}.ln_pre.weight"].shape[0]
        blocks = {key.split(".")[2] for key in weights if key.startswith(f"{name}.transformer.")}
        settings = {"width": width, "num_layers": len(blocks), "num_heads": width // 64}
        for key, value in settings.items():
            lines = parts[place].splitlines()
            found = [at for at, line in enumerate(lines) if line.strip().startswith(f"self.{key} = ")]
            assert found, key
            lines[found[0]] = f"        self.{key} = {value}"
            parts[place] = "\n".join(lines) + "\n"
    codes, size = weights["quantize.embedding.weight"].shape
    text = "".join(parts).replace("self.codebook_size = 4096", f"self.codebook_size = {codes}")
    text = text.replace("self.token_size = 32", f"self.token_size = {size}")
    module = types.ModuleType("authors_alitok")
    exec(compile(text, "alitok.py", "exec"), module.__dict__)
    model = module.AliTok()
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not missing and not unknown
    return model.eval()


@pytest.mark.parametrize(("guidance", "power"), [(1.0, 0.0), (4.0, 0.0), (6.0, 1.8)])
def test_should_choose_the_token_of_their_largest_logit(ours, generator, guidance, power):
    import torch

    labels = [0, 1, 2, ours.config["generator"]["classes"] - 1]
    drawn = ours.generate_tokens(
        labels, temperature=0, guidance=guidance, guidance_power=power, top_k=0, top_p=1.0
    )
    assert len(np.unique(drawn)) > 20
    with torch.no_grad():
        condition = generator.preprocess_condition(torch.tensor(labels))
        ids = torch.from_numpy(drawn)
        both = [condition, generator.get_none_condition(condition)]
        # Logits of a token are those behind the one before it.
        with_class, without = (generator.forward_fn(ids, one)[:, :-1] for one in both)
        step = torch.arange(ours.length) / ours.length
        scale = (guidance - 1) * (1 - torch.cos(step**power * torch.pi)) / 2 + 1
        logits = without + (with_class - without) * scale[None, :, None]
    chosen = logits.gather(2, ids[:, :, None])[:, :, 0]
    behind = logits.max(dim=2).values - chosen
    assert behind.max() < CLOSE * max(1.0, guidance)
    # Most are no near ties, so that another model would choose otherwise.
    second = logits.topk(2, dim=2).values
    assert (second[:, :, 0] - second[:, :, 1] > 0.01).float().mean() > 0.9


def test_should_draw_what_they_draw_token_by_token(ours, generator):
    import torch

    drawn = ours.generate_tokens([1, 2], temperature=0, guidance=3.0, guidance_power=1.0)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        # Their loop draws; the likeliest token is a draw at temperature 0.
        patch.setattr(torch, "multinomial", lambda chances, num_samples: chances.argmax(1)[:, None])
        theirs = generator.generate(torch.tensor([1, 2]), 3.0, 1.0, 1.0)
    np.testing.assert_array_equal(drawn, theirs.numpy())


def test_should_encode_and_decode_as_they_do(ours, tokenizer):
    import torch

    images = [alitok.data.read(TINY / f"image_{index}.png") for index in range(3)]
    tokens = ours.encode(images)
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        _, result = tokenizer.encode(pixels, tokenizer.latent_tokens)
        theirs = result["min_encoding_indices"].view(tokens.shape).numpy()
        pictures = tokenizer.decode_tokens(torch.from_numpy(tokens))
    np.testing.assert_array_equal(tokens, theirs)
    decoded = ours.decode(tokens, decoder="bidirectional")
    # As their `demo_util.py` makes pictures: cut off, not rounded.
    pictures = (pictures.clamp(0, 1) * 255).to(torch.uint8).numpy()
    apart = np.abs(decoded.astype(int) - pictures.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3
