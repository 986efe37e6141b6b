"""Pictures from files are Pillow's, and so are their crops, to the bit."""

import pickle

import numpy as np
import pytest
from conftest import FIXTURES
from PIL import Image

import alitok


def center_crop_arr(image, size):
    """guided-diffusion's, on which the released code stands."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(
        tuple(round(side * scale) for side in image.size), resample=Image.BICUBIC
    )
    array = np.array(image)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


def ten_crop_of_pillow(image, size):
    """torchvision's ``TenCrop`` of the centre crop at 1.1 times the size."""
    upright = center_crop_arr(image, int(size * 1.1))
    far = len(upright) - size
    middle = int(round(far / 2.0))
    views = []
    for whole in (upright, upright[:, ::-1]):
        for top, left in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
            views.append(whole[top : top + size, left : left + size])
    return np.stack(views)


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values).resize((width, height), Image.BICUBIC)


@pytest.mark.parametrize("name", ["photo_0.png", "photo_0.jpg", "photo_2.png", "photo_2.jpg"])
def test_should_read_and_crop_as_pillow_does(name):
    image = Image.open(FIXTURES / name).convert("RGB")
    np.testing.assert_array_equal(alitok.data.read(FIXTURES / name), np.asarray(image))
    contents = (FIXTURES / name).read_bytes()
    np.testing.assert_array_equal(alitok.data.decode(contents), np.asarray(image))
    for size in (32, 64, 100):
        expected = center_crop_arr(image, size)
        np.testing.assert_array_equal(alitok.data.center_crop(FIXTURES / name, size)[0], expected)
        np.testing.assert_array_equal(
            alitok.data.ten_crop(image, size), ten_crop_of_pillow(image, size)
        )


@pytest.mark.parametrize("width, height", [(500, 375), (375, 500), (64, 65), (70, 64), (33, 300)])
def test_should_crop_any_size_as_pillow_does(width, height):
    image = noise(width, height)
    np.testing.assert_array_equal(
        alitok.data.center_crop([image, image], 64, layout="NCHW")[1],
        np.moveaxis(center_crop_arr(image, 64), -1, 0),
    )
    np.testing.assert_array_equal(alitok.data.ten_crop(image, 64), ten_crop_of_pillow(image, 64))


def test_should_refuse_sizes_and_several_pictures():
    for size in (0, -1, 10**9, 1.5, "64"):
        with pytest.raises(alitok.InputError):
            alitok.data.center_crop(np.zeros((8, 8, 3), np.uint8), size)
    with pytest.raises(alitok.InputError, match="one picture"):
        alitok.data.ten_crop(np.zeros((2, 8, 8, 3), np.uint8), 4)
    with pytest.raises(alitok.FileError):
        alitok.data.decode(b"no picture")


def test_should_write_what_it_reads(tmp_path):
    picture = np.asarray(noise(13, 9))
    contents = alitok.data.encode_png(picture)
    np.testing.assert_array_equal(alitok.data.decode(contents), picture)
    (tmp_path / "x.png").write_bytes(contents)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), picture)


def test_should_open_the_bundled_pictures():
    data, heldout = alitok.data.open("bundled"), alitok.data.open("bundled:heldout")
    assert len(data) == 3518 and len(heldout) == 263 and len(data.classes) == 9
    assert data.classes == heldout.classes == alitok.load().classes
    sample = heldout[-1]
    assert sample.image.shape == (64, 64, 3) and sample.name == heldout.name(262)
    assert heldout.labels[-1] == sample.label and len(heldout.labels) == 263
    for index in (263, -264):
        with pytest.raises(IndexError):
            heldout[index]
    with pytest.raises(alitok.InputError):
        heldout["first"]
    again = pickle.loads(pickle.dumps(heldout))
    np.testing.assert_array_equal(again[5].image, heldout[5].image)


def test_should_list_folders_and_what_is_left_out(tmp_path):
    for name in ("cats/0.png", "cats/1.png", "dogs/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(alitok.data.encode_png(noise(20, 30, 1)))
    (tmp_path / "dogs/notes.txt").write_text("x")
    data = alitok.data.open(tmp_path)
    assert data.classes == ["cats", "dogs"] and data.labels.tolist() == [0, 0, 1]
    assert [group.names for group in data.left_out] == [["dogs/notes.txt"]]
    assert [sample.name for sample in data] == ["cats/0.png", "cats/1.png", "dogs/0.png"]
    views = data.views(0, 16, "mirrored")
    np.testing.assert_array_equal(views[1], views[0][:, ::-1])
    assert data.views(0, 16, "ten_crop").shape == (10, 16, 16, 3)
    with pytest.raises(alitok.InputError, match="ten_crop"):
        data.views(0, 16, "twenty")
    with pytest.raises(alitok.FileError, match="nowhere"):
        alitok.data.open(tmp_path / "nowhere")
