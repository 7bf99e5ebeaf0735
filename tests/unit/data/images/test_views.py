"""Views of pictures: where crops lie, what random views may do, what broken files say."""

import numpy as np
import pytest
import torch
from PIL import Image

from capnet.concurrency import in_threads
from capnet.data.images.decode import read_rgb
from capnet.data.images.views import MIN_AREA, centre_index, random_view, to_tensor
from capnet.data.images.views import test_canvas as canvas_for_test


def ramp(width, height):
    """Red is the column, green the row: a crop tells where it came from."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x % 256, y % 256, np.zeros_like(x)], axis=2).astype(np.uint8))


def views_for_test(*arguments):
    """The crops of a canvas, as a device cuts them."""
    canvas = canvas_for_test(*arguments)
    return [Image.fromarray(view.numpy()) for view in canvas.views(torch.from_numpy(canvas.pixels.copy()))]


def corner(view):
    pixel = view.getpixel((0, 0))
    return pixel[0], pixel[1]


def test_five_crops_are_the_corners_and_the_centre():
    image = ramp(240, 200)  # shorter side 200 = 160 + 40: no resizing, so positions are exact
    crops = views_for_test(image, 160, 5, 40, "bicubic", "short")
    assert [corner(crop) for crop in crops] == [(0, 0), (80, 0), (0, 40), (80, 40), (40, 20)]
    assert all(crop.size == (160, 160) for crop in crops)
    assert (
        corner(crops[centre_index(5)])
        == corner(views_for_test(image, 160, 1, 40, "bicubic", "short")[centre_index(1)])
        == (40, 20)
    )


def test_ten_views_add_the_mirrored_crops_and_keep_the_centre_in_place():
    image = ramp(240, 200)
    five, ten = (
        views_for_test(image, 160, 5, 40, "bicubic", "short"),
        views_for_test(image, 160, 10, 40, "bicubic", "short"),
    )
    assert [np.asarray(a).tolist() for a in ten[:5]] == [np.asarray(a).tolist() for a in five]
    np.testing.assert_array_equal(np.asarray(ten[7]), np.asarray(five[2])[:, ::-1])
    assert corner(ten[centre_index(10)]) == (40, 20)


@pytest.mark.parametrize("size", [(1000, 40), (40, 1000), (7, 7), (224, 224)])
def test_any_aspect_gives_full_views(size):
    image = Image.new("RGB", size, (10, 20, 30))
    assert {view.size for view in views_for_test(image, 64, 5, 24, "bilinear", "short")} == {(64, 64)}
    rng = np.random.default_rng(0)
    assert random_view(image, 64, "bicubic", rng).size == (64, 64)


def test_random_views_show_at_least_their_share_of_the_picture_and_mirror_half_of_them():
    image = ramp(200, 200)
    rng = np.random.default_rng(1)
    mirrored = 0
    for _ in range(200):
        view = np.asarray(random_view(image, 50, "bicubic", rng)).astype(int)
        columns, rows = np.ptp(view[25, :, 0]), np.ptp(view[:, 25, 1])
        assert (columns + 8) * (rows + 8) >= MIN_AREA * 200 * 200 * 0.95
        mirrored += view[25, 0, 0] > view[25, -1, 0]
    assert 70 < mirrored < 130


def test_tensors_are_normalised_per_channel():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).expand(4, 4, 3)
    tensor = to_tensor([image, image], (0.5, 0.5, 0.1), (0.5, 0.25, 0.1))
    assert tensor.shape == (2, 3, 4, 4)
    assert torch.allclose(tensor[0, :, 0, 0], torch.tensor([1.0, -2.0, 1.0]), atol=1e-6)
    assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_picture_mode_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.new(mode, (5, 3)).save(path)
    assert read_rgb(path).mode == "RGB"


def test_threads_keep_the_order_and_pass_errors_on():
    assert [int(t) for t in in_threads(range(50), lambda i: torch.tensor(i), 2, 8)] == list(range(50))
    with pytest.raises(ZeroDivisionError):
        list(in_threads([1, 0, 2], lambda i: torch.tensor(1 // i), 2, 8))


def quarters(width, height):
    """Red, green, blue and white quarters."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    for colour, workspace in (((255, 0, 0), (0, 0)), ((0, 255, 0), (width // 2, 0)), ((0, 0, 255), (0, height // 2))):
        image.paste(colour, (*workspace, workspace[0] + width // 2, workspace[1] + height // 2))
    return image


def test_squash_shows_the_whole_picture_in_a_square():
    (view,) = views_for_test(quarters(400, 100), 64, 1, 0, "bilinear", "squash")
    (square,) = views_for_test(quarters(64, 64), 64, 1, 0, "bilinear", "short")
    assert (
        np.abs(np.asarray(view).astype(int) - np.asarray(square)).max(axis=2)[[0, 20, 44, 63]][:, [0, 20, 44, 63]].max()
        == 0
    )
    (short,) = views_for_test(quarters(400, 100), 64, 1, 0, "bilinear", "short")
    assert short.getpixel((0, 0)) == (255, 0, 0)
    assert len({view.size for view in views_for_test(quarters(30, 500), 64, 10, 24, "bicubic", "squash")}) == 1


def test_pad_shows_the_whole_picture_between_grey():
    (view,) = views_for_test(quarters(400, 100), 64, 1, 0, "bilinear", "pad")
    pixels = np.asarray(view)
    assert (pixels[:20] == 127).all()
    assert (pixels[-20:] == 127).all()
    assert pixels[28, 5].tolist() == [255, 0, 0]
    assert pixels[36, 60].tolist() == [255, 255, 255]
    tall = np.asarray(views_for_test(quarters(100, 400), 64, 1, 0, "bilinear", "pad")[0])
    assert (tall[:, :20] == 127).all()


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_random_views_of_a_squashed_picture_are_those_of_the_square(size):
    """The same draws must show the same part of a picture and of its squashed copy."""
    wide = ramp(*size)
    square = wide.resize((100, 100), Image.Resampling.BILINEAR)
    for seed in range(20):
        one = random_view(wide, 32, "bilinear", np.random.default_rng(seed), "squash")
        other = random_view(square, 32, "bilinear", np.random.default_rng(seed))
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean() < 3
    shares = [
        float(
            (np.asarray(random_view(wide, 32, "bilinear", np.random.default_rng(seed), "pad")) == 127)
            .all(axis=2)
            .mean()
        )
        for seed in range(20)
    ]
    assert 0.3 < np.mean(shares) < 0.75  # two thirds of the square are grey
