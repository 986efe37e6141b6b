"""Token caches: what was encoded comes back, by number, slice and view, also through PyTorch."""

import pickle
import runpy
import subprocess

import numpy as np
import pytest
from conftest import ROOT

import alitok


@pytest.fixture()
def cache(cache_path):
    return alitok.TokenCache(cache_path)


@pytest.fixture(scope="module")
def gone(cache_path):
    """The picture that was left out."""
    (picture,) = alitok.TokenCache(cache_path).left_out
    return picture


def test_should_tell_what_it_is(cache, gone):
    assert cache.shape == (40, 10, 72) == (len(cache), cache.views, cache.length)
    assert len(cache.labels) == len(cache.names) == 40 and cache.labels.dtype == np.int64
    assert len(cache.tokenizer) == 64 and "ten-crop" in cache.augmentation
    assert cache.codes > int(cache[0].max()) and cache.captions(0) == []
    assert cache.verify() == [] and "damaged" in cache.left_out[gone]


def test_should_hold_what_the_encoder_says(cache, cache_path, model, tmp_path):
    names = cache.names
    whole = cache[0]
    # The pictures' folder is gone by then: the cache's own name of its first picture.
    data = alitok.data.open("bundled:heldout")
    sample = data[int(names[0].split("/")[-1].split(".")[0])]
    views = alitok.data.ten_crop(sample.image, 64)
    np.testing.assert_array_equal(whole, model.encode(views))


def test_should_slice_as_an_array_would(cache, gone):
    readable = [place for place in range(40) if place != gone]
    whole = np.stack([cache[place] for place in readable])
    assert whole.dtype == np.uint16 and whole.shape == (39, 10, 72)
    part = slice(gone + 1, 40, 3)
    places = list(range(*part.indices(40)))
    expected = np.stack([cache[place] for place in places])
    np.testing.assert_array_equal(cache[part], expected)
    np.testing.assert_array_equal(cache[places], expected)
    np.testing.assert_array_equal(cache[np.array(places), 2:4], expected[:, 2:4])
    np.testing.assert_array_equal(cache[places[0], 3, -1], expected[0, 3, -1])
    np.testing.assert_array_equal(cache[places[0] - 40], expected[0])
    chosen = np.zeros(40, bool)
    chosen[places] = True
    np.testing.assert_array_equal(cache[chosen], expected)
    assert cache[0:0].shape == cache[[]].shape == (0, 10, 72)
    # Without the picture that has none; and what is read is the reader's own.
    cache[0][:] = 0
    np.testing.assert_array_equal(cache[0], whole[0])


def test_should_refuse_what_is_not_there(cache, gone, tmp_path):
    for key in (40, -41, [0, 40], (0, 10)):
        with pytest.raises(IndexError):
            cache[key]
    for key in ("a", 1.5, [0.5], np.zeros((2, 2), int), None):
        with pytest.raises(ValueError):
            cache[key]
    with pytest.raises(alitok.FileError, match="left out"):
        cache[gone]
    with pytest.raises(alitok.FileError):
        alitok.TokenCache(tmp_path)


def test_should_find_damage(cache_path, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(cache_path, copy)
    shard = copy / "tokens-00000-of-00002.bin"
    contents = bytearray(shard.read_bytes())
    contents[len(contents) // 2] ^= 1
    shard.write_bytes(contents)
    cache = alitok.TokenCache(copy)
    assert len(cache.verify()) == 1
    with pytest.raises(alitok.FileError, match="damaged"):
        cache[:20]


@pytest.mark.parametrize("captions", [False, True])
def test_should_build_the_bytes_of_the_command_line(reference_program, model, tmp_path, captions):
    folder = tmp_path / "data" / "cats"
    folder.mkdir(parents=True)
    for index, sample in zip(range(3), alitok.data.open("bundled:heldout")):
        (folder / f"{index}.png").write_bytes(alitok.data.encode_png(sample.image))
    if captions:
        (folder / "1.txt").write_text("a cat, from the side")
    command = [reference_program, "cache", "build", "--data", folder.parent, "--ten-crop"]
    subprocess.run([*command, "--out", tmp_path / "theirs"], check=True, capture_output=True)
    told = []
    ours = alitok.TokenCache.build(
        folder.parent, model, tmp_path / "ours", views="ten_crop",
        progress=lambda *state: told.append(state),
    )  # fmt: skip
    assert told[-1] == (3, 3) and len(ours) == 3
    assert ours.captions(1) == (["a cat, from the side"] if captions else [])
    files = sorted(path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*.*"))
    assert len(files) >= 4
    for file in files:
        ours_bytes = (tmp_path / "ours" / file).read_bytes()
        assert ours_bytes == (tmp_path / "theirs" / file).read_bytes(), file


def test_should_go_on_after_an_interruption(model, tmp_path):
    class Stop(Exception):
        pass

    def progress(done, total):
        if done > 3:
            raise Stop

    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    for index, sample in zip(range(70), alitok.data.open("bundled:heldout")):
        (folder / "a" / f"{index:02}.png").write_bytes(alitok.data.encode_png(sample.image))
    with pytest.raises(Stop):
        alitok.TokenCache.build(folder, model, tmp_path / "cut", views="mirrored", progress=progress)
    with pytest.raises(alitok.FileError, match="not finished|not built"):
        alitok.TokenCache(tmp_path / "cut")
    resumed = alitok.TokenCache.build(folder, model, tmp_path / "cut", views="mirrored")
    whole = alitok.TokenCache.build(folder, model, tmp_path / "whole", views="mirrored")
    np.testing.assert_array_equal(resumed[:], whole[:])


def test_should_be_pickled_as_its_path(cache):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache))[0], cache[0])


torch = pytest.importorskip("torch")
data = pytest.importorskip("torch.utils.data")


def test_should_be_a_data_set_of_torch(cache_path, cache, gone):
    dataset = alitok.torch.TokenCacheDataset(cache_path, views="all")
    assert len(dataset) == 400
    tokens, label = dataset[23]
    assert tokens.dtype == label.dtype == torch.int64
    np.testing.assert_array_equal(tokens, cache[2, 3])
    assert label == cache.labels[2]
    np.testing.assert_array_equal(dataset[-1][0], cache[39, 9])
    fixed = alitok.torch.TokenCacheDataset(cache_path, views=4, label_first=True)
    assert len(fixed) == 40 and fixed[0][0] == cache.labels[0]
    np.testing.assert_array_equal(fixed[0][1], cache[0, 4])
    # The next one in place of the one that was left out.
    np.testing.assert_array_equal(fixed[gone][1], cache[gone + 1, 4])
    strict = alitok.torch.TokenCacheDataset(cache_path, left_out="raise")
    with pytest.raises(alitok.FileError, match="left out"):
        strict[gone]
    for index in (400, -401):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(alitok.InputError):
        alitok.torch.TokenCacheDataset(cache_path, views=10)


def test_should_draw_views_by_seed_epoch_and_picture_alone(cache_path, cache):
    def views(seed, epoch, order=None):
        dataset = alitok.torch.TokenCacheDataset(cache_path, seed=seed)
        dataset.set_epoch(epoch)
        order = list(range(6, 40)) if order is None else order
        tokens = dataset.__getitems__(order).tokens
        found = [int((cache[place] == row.numpy()).all(1).argmax()) for place, row in zip(order, tokens)]
        return dict(zip(order, found))

    first = views(1, 0)
    assert first == views(1, 0, list(range(39, 5, -1)))
    assert first != views(1, 1) and first != views(2, 0)
    assert len(set(first.values())) > 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("collate", [alitok.torch.collate, None])
def test_should_work_with_workers(cache_path, cache, gone, method, collate):
    dataset = alitok.torch.TokenCacheDataset(cache_path, views="all")
    loader = data.DataLoader(
        dataset, batch_size=16, num_workers=2, multiprocessing_context=method, collate_fn=collate
    )
    batches = list(loader)
    tokens = torch.cat([tokens for tokens, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    readable = np.arange(40) != gone
    np.testing.assert_array_equal(tokens.reshape(40, 10, 72)[readable], cache[readable])
    np.testing.assert_array_equal(labels.reshape(40, 10)[:, 0], cache.labels)


def test_should_work_with_a_distributed_sampler(cache_path):
    dataset = alitok.torch.TokenCacheDataset(cache_path, label_first=True)
    seen = []
    for rank in range(3):
        sampler = data.distributed.DistributedSampler(dataset, num_replicas=3, rank=rank, shuffle=True)
        loader = data.DataLoader(
            dataset, sampler=sampler, batch_size=5, collate_fn=alitok.torch.collate
        )
        seen += [len(labels) for labels, _ in loader]
    assert sum(seen) == 42  # 40, filled up to a multiple of 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_should_train_a_small_model_of_torch(cache_path):
    example = runpy.run_path(str(ROOT / "python" / "examples" / "train_on_cache.py"))
    losses = example["main"]([cache_path, "--steps", "40", "--batch", "10", "--workers", "2"])
    # Each token is as likely as any other at first.
    assert abs(losses[0] - np.log(4096)) < 0.5 and len(losses) == 40
    assert np.mean(losses[-5:]) < losses[0] - 1
