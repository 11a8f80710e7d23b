"""Encoded pictures to the view that evaluation uses, in the graph: parallel, bounded, with clear errors."""

from __future__ import annotations

import tensorflow as tf

# Pixels of the largest picture that is decoded. A JPEG is decoded at down to an eighth of its side, but a progressive
# one keeps the coefficients of the whole picture meanwhile: 3 bytes a pixel, 6 without subsampling, 8 in CMYK. Others
# are decoded whole, 3 bytes a pixel.
MAX_JPEG_PIXELS, MAX_PIXELS = 2**26, 2**25
_AT_A_TIME = 4  # pictures of a request, which bounds the memory
RATIOS = (1, 2, 4, 8)  # what a JPEG decoder divides the side by at no cost
_KEPT = 2  # a JPEG is decoded to at least so many times the side of the view


def decode_and_crop(
    image_bytes: tf.Tensor, size: int, crop_ratio: float, index: tf.Tensor | int = 0
) -> tf.Tensor:
    """Decodes one picture and cuts the view that evaluation uses.

    The central square of `crop_ratio` times the shorter side is resized to `size`, antialiased: what
    `keras_ssl.views.center_crop` does, for pictures of any size. Gray becomes RGB, alpha is dropped, EXIF
    orientation is not applied.

    A JPEG whose central square has at least four times `size` on a side is decoded at a half, a quarter or an eighth,
    to no less than twice `size`: less work and memory, and pixels that differ a little (see `docs/serving.md`). All
    other pictures give exactly the pixels that training sees.

    Args:
        image_bytes: string scalar. A JPEG, PNG or BMP file.
        size: int. Side of the result.
        crop_ratio: float in (0, 1].
        index: int scalar. Place in the request, for error messages. Defaults to `0`.

    Returns:
        float32 `(size, size, 3)` in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: If it is no picture, a broken one, or larger than 2^26 pixels (JPEG) or
            2^25 (the other formats).
    """
    with tf.control_dependencies([_check_kind(image_bytes, index)]):
        image_bytes = tf.identity(image_bytes)
    image, shape = tf.cond(
        tf.io.is_jpeg(image_bytes),
        lambda: _decode_jpeg(image_bytes, size, crop_ratio, index),
        lambda: _decode_other(image_bytes, index),
    )
    return _crop(tf.ensure_shape(image, (None, None, 3)), shape, size, crop_ratio)


def decode_batch(image_bytes: tf.Tensor, size: int, crop_ratio: float) -> tf.Tensor:
    """Decodes pictures side by side, up to four at a time.

    Args:
        image_bytes: string `(batch,)`.
        size: int. Side of the result.
        crop_ratio: float in (0, 1].

    Returns:
        float32 `(batch, size, size, 3)` in [0, 1].
    """
    return tf.map_fn(
        lambda item: decode_and_crop(item[1], size, crop_ratio, item[0]),
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
        parallel_iterations=_AT_A_TIME,
    )


def _crop(image: tf.Tensor, shape: tf.Tensor, size: int, crop_ratio: float) -> tf.Tensor:
    """Cuts and resizes in one resampling; the picture stays uint8, so that no float copy of it is made."""
    side = crop_ratio * tf.reduce_min(shape)
    scale = tf.fill([2], size / side)
    view = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=scale,
        translation=-(shape - side) / 2.0 * scale,
        kernel_type="triangle",
        antialias=True,
    )
    return tf.ensure_shape(view[0] / 255.0, (size, size, 3))


def _decode_jpeg(
    image_bytes: tf.Tensor, size: int, crop_ratio: float, index: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels, and height and width in them: fractions where a ratio does not divide the side."""
    shape = tf.image.extract_jpeg_shape(image_bytes)  # reads the header only

    def at(ratio: int) -> tf.Tensor:
        # The accurate transform gives the pixels that Pillow gives, and that training saw; the default is off by up
        # to 7.
        return tf.io.decode_jpeg(
            image_bytes, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    with tf.control_dependencies([_check_size(shape[0], shape[1], MAX_JPEG_PIXELS, index)]):
        whole = tf.cast(shape[:2], tf.float32)
    large = [crop_ratio * tf.reduce_min(whole) / ratio >= _KEPT * size for ratio in RATIOS[1:]]
    choice = tf.reduce_sum(tf.cast(tf.stack(large), tf.int32))
    image = tf.switch_case(choice, [lambda ratio=ratio: at(ratio) for ratio in RATIOS])
    return image, whole / tf.gather(tf.constant(RATIOS, tf.float32), choice)


def _decode_other(image_bytes: tf.Tensor, index: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = _declared_shape(image_bytes)
    with tf.control_dependencies([_check_size(height, width, MAX_PIXELS, index)]):
        image_bytes = tf.identity(image_bytes)
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return image, tf.cast(tf.shape(image)[:2], tf.float32)


def _declared_shape(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width from the header of a PNG or BMP file; 0 where it is cut off."""
    head = tf.strings.substr(image_bytes, 0, 26)
    padded = tf.strings.join([head, "\0" * 26])
    byte = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, 26), tf.uint8), tf.int64)

    def number(*places: int) -> tf.Tensor:
        """Little-endian: the lowest byte comes first."""
        return tf.add_n([byte[place] * 256**power for power, place in enumerate(places)])

    of_bmp = number(22, 23, 24, 25)  # negative where the top row comes first
    of_bmp = tf.where(of_bmp >= 2**31, 2**32 - of_bmp, of_bmp)
    is_png = byte[0] == 0x89
    height = tf.where(is_png, number(23, 22, 21, 20), of_bmp)
    width = tf.where(is_png, number(19, 18, 17, 16), number(18, 19, 20, 21))
    return height, width


def _check_kind(image_bytes: tf.Tensor, index: tf.Tensor | int) -> tf.Operation:
    starts = [b"\xff\xd8\xff", b"\x89PNG", b"BM"]
    known = [tf.strings.substr(image_bytes, 0, len(start)) == start for start in starts]
    message = tf.strings.join(
        [
            "Expected a JPEG, PNG or BMP file. Received: image ",
            tf.strings.as_string(index),
            " of the request, ",
            tf.strings.as_string(tf.strings.length(image_bytes)),
            " bytes of something else.",
        ]
    )
    return tf.debugging.Assert(tf.reduce_any(known), [message])


def _check_size(
    height: tf.Tensor, width: tf.Tensor, limit: int, index: tf.Tensor | int
) -> tf.Operation:
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    message = tf.strings.join(
        [
            f"Expected a picture of at most {limit // 2**20} * 2^20 pixels. Received: image ",
            tf.strings.as_string(index),
            " of the request, ",
            tf.strings.as_string(width),
            " x ",
            tf.strings.as_string(height),
            ".",
        ]
    )
    return tf.debugging.Assert(pixels <= limit, [message])
