"""Every kind of picture becomes RGB on the canvas, and a broken one raises."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_ssl.data.decode import array_to_rgb, decode, read_header, resize_array

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quadrants(width=64, height=48):
    """Red and green above, blue and yellow below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, YELLOW
    return pixels


def corners(image):
    """Colors in the middle of the four quadrants, rounded to 0 or 255, in reading order."""
    h, w = image.shape[:2]
    spots = [(h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4), (3 * h // 4, 3 * w // 4)]
    return [tuple(int(v > 127) * 255 for v in image[y, x]) for y, x in spots]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    image, aspect = decode(encode(Image.fromarray(pixels), kind, **options), (48, 64))
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.uint8 and aspect == 1.0


def test_path_and_bytes_give_the_same(tmp_path):
    data = encode(Image.fromarray(quadrants()), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(
        decode(tmp_path / "a.png", (48, 64))[0], decode(data, (48, 64))[0]
    )


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, YELLOW]),
        (2, [GREEN, RED, YELLOW, BLUE]),  # mirrored left to right
        (3, [YELLOW, BLUE, GREEN, RED]),  # half a turn
        (4, [BLUE, YELLOW, RED, GREEN]),  # mirrored top to bottom
        (5, [RED, BLUE, GREEN, YELLOW]),  # transposed
        (6, [BLUE, RED, YELLOW, GREEN]),  # to be turned clockwise
        (7, [YELLOW, GREEN, BLUE, RED]),  # transposed along the other diagonal
        (8, [GREEN, YELLOW, RED, BLUE]),  # to be turned counterclockwise
    ],
)
@pytest.mark.parametrize("canvas", [(96, 64), (20, 40)])
def test_exif_orientation_turns_the_picture(orientation, expected, canvas):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(quadrants(160, 120)), "JPEG", exif=exif, quality=95)
    image, aspect = decode(data, canvas)
    assert image.shape == (*canvas, 3)
    assert corners(image) == expected
    width, height = (120, 160) if orientation >= 5 else (160, 120)
    assert aspect == pytest.approx((width / height) * (canvas[0] / canvas[1]))
    assert read_header(data) == ((width, height), "JPEG")


def test_damaged_exif_is_ignored():
    data = encode(Image.fromarray(quadrants()), "JPEG", exif=b"Exif\0\0not a directory")
    assert corners(decode(data, (48, 64))[0]) == [RED, GREEN, BLUE, YELLOW]


def test_16_bit_gray_is_scaled_by_257():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image, _ = decode(encode(Image.fromarray(values), "PNG"), (1, 6))
    expected = [0, 0, 1, 1, 128, 255]  # round(v / 257): 128 / 257 = 0.498, 129 / 257 = 0.502
    np.testing.assert_array_equal(image, np.repeat(np.array(expected)[None, :, None], 3, -1))


def test_16_bit_color_keeps_its_high_byte():
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    row = b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0x00FF)  # no filter, then one RGB pixel
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(data, (1, 1))[0], [[[0x12, 0xFF, 0x00]]])


def test_cmyk_jpeg_becomes_rgb():
    data = encode(Image.fromarray(quadrants()).convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
    assert corners(decode(data, (48, 64))[0]) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_shows_its_first_frame(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert corners(decode(data, (16, 16))[0]) == [RED] * 4


def test_alpha_is_shown_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 128, 255  # black: transparent, half, opaque
    expected = [[[255] * 3, [127] * 3, [0] * 3]]  # 255 * (1 - 128 / 255) = 127
    np.testing.assert_array_equal(
        decode(encode(Image.fromarray(pixels), "PNG"), (1, 3))[0], expected
    )
    np.testing.assert_array_equal(array_to_rgb(pixels[None])[0], expected)


def test_gray_alpha_palette_and_palette_transparency():
    gray = Image.fromarray(np.array([[0, 90, 255]], np.uint8))
    plain = [[[v] * 3 for v in (0, 90, 255)]]
    np.testing.assert_array_equal(decode(encode(gray, "PNG"), (1, 3))[0], plain)
    np.testing.assert_array_equal(decode(encode(gray.convert("LA"), "PNG"), (1, 3))[0], plain)
    np.testing.assert_array_equal(
        decode(encode(gray.convert("1"), "PNG"), (1, 3))[0][0, 2], [255] * 3
    )
    palette = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    palette.putpalette([*RED, *GREEN, *BLUE])
    np.testing.assert_array_equal(decode(encode(palette, "PNG"), (1, 3))[0], [[RED, GREEN, BLUE]])
    image, _ = decode(encode(palette, "PNG", transparency=1), (1, 3))
    np.testing.assert_array_equal(image, [[RED, (255, 255, 255), BLUE]])


@pytest.mark.parametrize(("width", "height"), [(1, 4000), (4000, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes_are_kept_whole(width, height, kind):
    ramp = np.linspace(0, 255, max(width, height)).astype(np.uint8).reshape(height, width)
    image, aspect = decode(encode(Image.fromarray(ramp), kind), (32, 48))
    assert image.shape == (32, 48, 3)
    assert aspect == pytest.approx(width / height * 32 / 48)
    if height == 4000:
        assert image[0].max() < 12 and image[-1].min() > 243  # both ends are there


def test_resize_is_antialiased_and_whole():
    """Stripes of one pixel vanish into gray when reduced four times; a plain pick would keep them."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    image, aspect = decode(encode(Image.fromarray(stripes), "PNG"), (16, 16))
    assert aspect == 1.0 and np.abs(image[:, 1:-1].astype(int) - 127).max() <= 8
    np.testing.assert_array_equal(image, resize_array(stripes, (16, 16)))


def test_bilinear_reduction_matches_a_slow_reference():
    """Each output is a triangle of half-width `scale` around its center, normalized at the border."""
    row = np.random.default_rng(1).integers(0, 256, 30).astype(np.uint8)
    scale = 30 / 12
    expected = []
    for i in range(12):
        center = (i + 0.5) * scale
        weights = np.maximum(0, 1 - np.abs((np.arange(30) + 0.5 - center) / scale))
        expected.append((weights * row).sum() / weights.sum())
    pixels = np.repeat(np.repeat(row[None, :, None], 4, 0), 3, 2)
    image, aspect = decode(encode(Image.fromarray(pixels), "PNG"), (4, 12))
    np.testing.assert_allclose(image[0, :, 0], expected, atol=1.01)
    assert aspect == pytest.approx((30 / 4) * (4 / 12))


def test_large_jpeg_is_decoded_at_a_smaller_scale(monkeypatch):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    photo = small.resize((1200, 900), Image.Resampling.BICUBIC)
    data = encode(photo, "JPEG", quality=95)
    loaded = []
    original = ImageFile.ImageFile.load

    def load(self):
        loaded.append(self.size)
        return original(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    image, aspect = decode(data, (100, 100))
    assert min(loaded)[0] == 150  # 1/8 of 1200: 900 // 100 = 9, and JPEG knows 1/8
    assert aspect == pytest.approx(4 / 3)
    direct = np.asarray(photo.resize((100, 100), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(image - direct).mean() < 4


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(b"this is a text\n" * 40, id="text"),
        pytest.param(encode(Image.fromarray(quadrants()), "PNG")[:-60], id="cut PNG"),
    ],
)
def test_broken_raises(data):
    with pytest.raises((OSError, SyntaxError)):
        decode(data, (48, 64))


@pytest.mark.parametrize("canvas", [(300, 400), (30, 40)])
def test_truncated_jpeg_raises_at_full_and_reduced_scale(canvas):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", quality=90)
    decode(data, canvas)
    with pytest.raises(OSError, match="truncated"):
        decode(data[: len(data) // 2], canvas)


def test_absurd_size_is_refused_and_50_megapixels_are_not():
    def png(side):
        return encode(Image.new("1", (side, side)), "PNG")

    image, _ = decode(png(7100), (32, 32))
    assert image.max() == 0
    with pytest.raises(Image.DecompressionBombError):
        decode(png(14_000), (32, 32))
