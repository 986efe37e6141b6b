"""The authors' files in, and ours under their names out."""

import numpy as np
import pytest
from conftest import FIXTURES

import alitok

TINY = FIXTURES / "released_tiny"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    out = tmp_path_factory.mktemp("released") / "model"
    return alitok.weights.import_(
        FIXTURES / "tokenizer_stage2.pth", FIXTURES / "generator.pth", out=out
    )


def original(name):
    """A checkpoint as PyTorch reads it."""
    torch = pytest.importorskip("torch")
    return torch.load(FIXTURES / name, weights_only=True, map_location="cpu")


def test_should_give_back_the_names_and_values_that_came_in(released):
    torch = pytest.importorskip("torch")
    for part, file in (("generator", "generator.pth"), ("tokenizer", "tokenizer_stage2.pth")):
        ours, theirs = alitok.state_dict(released, part), original(file)
        theirs = theirs.get("model", theirs)
        assert set(ours) <= set(theirs), part
        assert len(ours) > 10
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name].float()), name
        arrays = alitok.state_dict(released, part, numpy=True)
        assert all(np.array_equal(arrays[name], tensor) for name, tensor in ours.items())


def test_should_write_files_that_it_reads(released, tmp_path):
    for ending in ("pth", "safetensors"):
        files = [tmp_path / f"{part}.{ending}" for part in ("tokenizer", "generator")]
        alitok.weights.export(released, tokenizer=files[0], generator=files[1])
        again = alitok.weights.import_(*files, out=tmp_path / f"model {ending}")
        assert again.config == released.config
        np.testing.assert_array_equal(
            again.generate_tokens(0, seed=3), released.generate_tokens(0, seed=3)
        )


def test_should_say_what_is_wrong(released, model, tmp_path):
    with pytest.raises(alitok.FileError, match="nowhere"):
        alitok.weights.import_("nowhere.pth", out=tmp_path / "x")
    with pytest.raises(alitok.FileError):
        alitok.weights.import_(FIXTURES / "photo_0.png", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("x")
    with pytest.raises(alitok.FileError, match="taken"):
        alitok.weights.import_(FIXTURES / "tokenizer_stage2.pth", out=tmp_path / "taken")
    with pytest.raises(alitok.InputError, match="name a file"):
        alitok.weights.export(model)
    with pytest.raises(alitok.InputError, match="generator"):
        alitok.state_dict(model, "discriminator")
