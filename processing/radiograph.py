"""A chest radiograph, as hospitals and people hand it over (DICOM, PNG, JPEG, array) -> 8-bit grey PIL images."""

import binascii
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from .dicom import MAX_BYTES, GreyPicture, ReadOptions, apply_table, find_optional, read_dataset, read_dicom
from .doubts import MAX_PIXELS, check_size, collected_warnings, unusable, warn
from .picture_check import picture_doubts

# Pillow's other readers start programs (EPS) or recognise almost any bytes (TGA).
_RASTER_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")
_CHANNELS = (1, 3, 4)
# What undoes a turn, where that is not the turn itself.
BACK = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
_LONGEST_PATH = 4096  # characters, on Linux; elsewhere it is shorter
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")  # also the alphabet for URLs


def load_radiograph(source: Any, windowing: str = "dicom", num_threads: int = 1) -> Image.Image:
    """One radiograph in 8-bit grey, at its own size; air is black.

    Args:
        source: a file (DICOM, PNG, JPEG, GIF, BMP, TIFF, WebP, JPEG 2000, PNM; recognised by content, not by suffix):
            its path or `file://` URL, its bytes, its bytes as a `data:` URL or in base64, a binary file object, or
            {"bytes": ..., "path": ...} of which one may be None (`datasets.Image(decode=False)`); a `pydicom.Dataset`;
            a PIL image; or a NumPy array of shape (h, w), or with 1 channel, 3 (RGB) or 4 (RGBA) as the last axis or
            the first, the last where either could be. Arrays are bool, uint8, uint16 or float in [0, 1]. 16 bits,
            of pictures too, are scaled by their full range, or by that of the bits that the largest value needs.
            Colour becomes luminance (ITU-R BT.601), transparent pixels lie over black, EXIF orientation is applied.
        windowing: "dicom" or "paper", see `dicom_to_radiograph`; other sources than DICOM don't depend on it.
        num_threads: that decode one JPEG 2000 stream.

    Returns:
        A PIL image of mode "L", as it is stored. Where there is something to say, `image.info` has "warnings", the
        texts of the warnings below without the file's name, and "turn", what brings it to the standard view (see
        `GreyPicture.turn`). Both stay known where such an image is given again.

    Raises:
        RadiographError: the radiograph cannot be used: unreadable, damaged, larger than `MAX_PIXELS` or `MAX_BYTES`,
            of another modality, a URL of another machine, a folder.
        TypeError: `source` is none of these.

    Warns:
        UserWarning: what `dicom_to_radiograph` warns of; the first of several frames is used; 16 bits that hold fewer;
            a picture that shows nothing, looks inverted or is not a chest's (`picture_check.py`).
    """
    return _checked(source, ReadOptions(windowing, num_threads)).image


def in_standard_view(image: Image.Image) -> Image.Image:
    """A radiograph that `load_radiograph` gave, turned as models are shown it; itself where it stands so."""
    turn = image.info.get("turn")
    if turn is None:
        return image
    image = image.transpose(turn)
    del image.info["turn"]
    return image


def box_as_given(
    box: tuple[float, float, float, float], turn: Image.Transpose | None
) -> tuple[float, float, float, float]:
    """A box of the standard view in the radiograph as it was given; xyxy, fractions of the whole in both.

    Args:
        box: in the picture after `turn`.
        turn: what the radiograph was turned by, `SquashedRadiograph.turn` or `image.info["turn"]`.
    """
    xmin, ymin, xmax, ymax = box
    if turn is None:
        return box
    across, down = {
        Image.Transpose.FLIP_LEFT_RIGHT: ((1 - xmax, 1 - xmin), (ymin, ymax)),
        Image.Transpose.FLIP_TOP_BOTTOM: ((xmin, xmax), (1 - ymax, 1 - ymin)),
        Image.Transpose.ROTATE_180: ((1 - xmax, 1 - xmin), (1 - ymax, 1 - ymin)),
        Image.Transpose.TRANSPOSE: ((ymin, ymax), (xmin, xmax)),
        Image.Transpose.TRANSVERSE: ((1 - ymax, 1 - ymin), (1 - xmax, 1 - xmin)),
        Image.Transpose.ROTATE_90: ((1 - ymax, 1 - ymin), (xmin, xmax)),
        Image.Transpose.ROTATE_270: ((ymin, ymax), (1 - xmax, 1 - xmin)),
    }[turn]
    return across[0], down[0], across[1], down[1]


def box_as_shown(
    box: tuple[float, float, float, float], turn: Image.Transpose | None
) -> tuple[float, float, float, float]:
    """A box of the radiograph as it was given in the standard view, what `box_as_given` undoes."""
    return box_as_given(box, BACK.get(turn, turn))


def box_in_pixels(box: tuple[float, float, float, float], width: int, height: int) -> dict[str, int]:
    """An xyxy box in fractions of the whole, in pixels of a radiograph, as the object-detection pipeline writes it."""
    xmin, ymin, xmax, ymax = box
    return {
        "xmin": round(xmin * width),
        "ymin": round(ymin * height),
        "xmax": round(xmax * width),
        "ymax": round(ymax * height),
    }


def grid_as_given(grid: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """A map (rows, columns) of the standard view, over the radiograph as it was given; `turn` as `box_as_given`'s."""
    if turn is None:
        return grid
    return np.asarray(Image.fromarray(grid).transpose(BACK.get(turn, turn)))


def holds_images(images: Any) -> bool:
    """Whether this is several radiographs: a list, a column of a data set, a batch of arrays, ...; or else one."""
    if hasattr(images, "ndim") and hasattr(images, "dtype"):  # an array or a tensor
        kind = getattr(images.dtype, "kind", None)
        return images.ndim > 3 or (images.ndim > 0 and kind in ("O", "U"))
    if isinstance(images, (str, bytes, bytearray, memoryview, dict)) or hasattr(images, "read"):
        return False
    return isinstance(images, Iterable) and type(images).__module__.partition(".")[0] != "pydicom"


@dataclass(frozen=True)
class SquashedRadiograph:
    """A radiograph as towers see it: the whole image squashed to their input sizes, without a crop.

    Attributes:
        size: (width, height) of the radiograph as it was given, in pixels.
        pictures: mode "L", by their (width, height), in the standard view.
        turn: what brought them there, for `box_as_given`; None where the radiograph stood so.
        warnings: what is doubtful about the radiograph, without its name.
    """

    size: tuple[int, int]
    pictures: dict[tuple[int, int], Image.Image]
    turn: Image.Transpose | None = None
    warnings: tuple[str, ...] = ()


def squash_radiograph(
    source: Any,
    sizes: Sequence[tuple[int, int]],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    windowing: str = "dicom",
    fast: bool = False,
    num_threads: int = 1,
) -> SquashedRadiograph:
    """One radiograph in 8-bit grey, squashed to each of `sizes` with Pillow's antialiased filter.

    Args:
        source, windowing, num_threads: see `load_radiograph`.
        sizes: (width, height) in pixels.
        resample: the filter.
        fast: approximate. JPEG 2000 with a window is decoded at the lowest resolution that has twice the pixels of the
            largest size, and other large pictures are averaged over blocks before they are resized (Pillow's
            `reducing_gap`). Exact, the pictures equal `in_standard_view(load_radiograph(source)).resize(size,
            resample)`.

    Raises:
        RadiographError, TypeError: see `load_radiograph`.
    """
    enough = 2 * max(max(size) for size in sizes) if fast else None
    picture = _checked(source, ReadOptions(windowing, num_threads, enough, turned=True))
    reducing_gap = 3.0 if fast else None
    image = in_standard_view(picture.image)
    squashed = {size: image.resize(size, resample, picture.box, reducing_gap) for size in set(sizes)}
    return SquashedRadiograph(picture.size, squashed, picture.turn, tuple(picture.image.info.get("warnings", ())))


def _checked(source: Any, options: ReadOptions) -> GreyPicture:
    """The radiograph after one look at it, with what is doubtful about it in its image's `info`."""
    with collected_warnings() as said:
        if isinstance(source, Image.Image):
            said += source.info.get("warnings", [])
        picture = _read(source, options)
        for doubt in picture_doubts(picture.image, picture.turn):
            warn(picture.name, doubt)
    if said:
        picture.image.info["warnings"] = list(said)
    if picture.turn is not None:
        picture.image.info["turn"] = picture.turn
    return picture


def _read(source: Any, options: ReadOptions) -> GreyPicture:
    if isinstance(source, dict):
        if not source.keys() <= {"bytes", "path"}:
            raise TypeError("a radiograph's dictionary has 'bytes' and 'path' only, as datasets.Image gives it")
        data, path = source.get("bytes"), source.get("path")
        if data is not None:
            return _read_file(BytesIO(data), "the given bytes" if path is None else os.fspath(path), options)
        if path is None:
            raise unusable("the given dictionary", "it has neither bytes nor a path")
        source = path
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _read_file(BytesIO(_data_url_bytes(source)), "the given data URL", options)
    if isinstance(source, str) and source[:7].lower() == "file://":
        source = _file_url_path(source)
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.fspath(source), options)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_file(BytesIO(source), "the given bytes", options)
    if isinstance(source, Image.Image):
        picture = _in_full(_picture_to_grey(source, "the given image"), "the given image")
        return replace(picture, turn=source.info.get("turn"))
    if isinstance(source, np.ndarray):
        return _in_full(_array_to_grey(source, "the given array"), "the given array")
    if type(source).__module__.partition(".")[0] == "pydicom":
        return read_dataset(source, "the given dataset", options)
    if callable(getattr(source, "read", None)):
        data = source.read(MAX_BYTES + 1)
        if not isinstance(data, bytes):
            raise TypeError("a radiograph's file object must be opened in binary mode")
        return _read_file(BytesIO(data), "the given file object", options)
    raise TypeError(
        "a radiograph is a path, bytes, base64, a binary file object, a pydicom.Dataset, a PIL image or an array, "
        f"not {type(source).__name__}"
    )


def _in_full(image: Image.Image, name: str) -> GreyPicture:
    return GreyPicture(image, image.size, name=name)


def _read_path(path: str, options: ReadOptions) -> GreyPicture:
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise unusable(path, "it is a URL; download it and give the file")
    if not os.path.isfile(path):  # before it is opened: a pipe would wait for ever
        data = None if os.path.exists(path) else _base64_bytes(path)
        if data is not None:
            return _read_file(BytesIO(data), "the given base64 string", options)
        raise unusable(path, "it is not a file" if os.path.exists(path) else "there is no such file")
    try:
        file = open(path, "rb")
    except OSError as error:
        raise unusable(path, f"it cannot be opened ({error.strerror})") from None
    with file:
        return _read_file(file, path, options)


def _data_url_bytes(url: str) -> bytes:
    header, _, data = url.partition(",")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return binascii.a2b_base64(unquote(data))
    except ValueError:
        raise unusable("the given data URL", "its data are not base64") from None


def _file_url_path(url: str) -> str:
    host, _, path = url[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise unusable(url, "it is a file of another machine; a file here has three slashes, file:///")
    from urllib.request import url2pathname  # takes 20 ms to import

    return url2pathname("/" + path)


def _base64_bytes(text: str) -> bytes | None:
    """The bytes of a string that is a picture or DICOM file in base64, None where it may be a path."""
    text = "".join(text.split())  # it may come in lines
    if not _BASE64.fullmatch(text):
        return None
    text = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    if len(text) > _LONGEST_PATH or data[128:132] == b"DICM":
        return data
    try:
        Image.open(BytesIO(data), formats=_RASTER_FORMATS)
    except UnidentifiedImageError:
        return None
    except Exception:  # see _picture_to_grey; it is a picture, and what is wrong with it is said when it is read
        pass
    return data


def _read_file(file: BinaryIO, name: str, options: ReadOptions) -> GreyPicture:
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise unusable(name, f"it is larger than {MAX_BYTES >> 30} GiB")
    file.seek(0)
    head = file.read(132)
    if not head:
        raise unusable(name, "it is empty")
    file.seek(0)
    if head[128:] != b"DICM":
        try:
            image = Image.open(file, formats=_RASTER_FORMATS)
        except UnidentifiedImageError:
            file.seek(0)
        except Image.DecompressionBombError:
            raise unusable(name, f"it has more than {MAX_PIXELS:,} pixels") from None
        except Exception:  # see _picture_to_grey
            raise unusable(name, "its picture is damaged or cut short") from None
        else:
            deep = _deep_colours(image, file, name)
            return _in_full(_picture_to_grey(image, name) if deep is None else _array_to_grey(deep, name), name)
    return read_dicom(file, name, options)


def _deep_colours(image: Image.Image, file: BinaryIO, name: str) -> np.ndarray | None:
    """A PNG's colours of 16 bits, of which Pillow keeps the upper 8; None for other pictures and very large ones."""
    mode = image.tile[0].args if image.tile and image.format == "PNG" else None
    if mode not in ("RGB;16B", "RGBA;16B", "LA;16B") or (codec := find_optional("imagecodecs")) is None:
        return None
    if 4 * image.height * image.width > MAX_PIXELS:
        return None
    file.seek(0)
    try:
        values = codec.png_decode(file.read())
    except Exception:  # see _picture_to_grey
        raise unusable(name, "its picture is damaged or cut short") from None
    if mode == "RGB;16B":
        return values
    colours, alpha = values[..., :-1], values[..., -1:]
    if alpha.min() < 65535:
        colours = np.rint(colours * (alpha / 65535)).astype(np.uint16)  # over black
    return np.ascontiguousarray(colours)


def _picture_to_grey(image: Image.Image, name: str) -> Image.Image:
    # Pillow holds 4 bytes a pixel in these modes, and conversion holds them several times.
    samples = 2 if image.mode in ("RGBA", "CMYK", "I", "F") else 1
    check_size(image.height, image.width, samples, name)
    try:
        several = getattr(image, "is_animated", False)  # only Pillow's multi-frame formats have it
        image.load()
        image = ImageOps.exif_transpose(image)
        deep = image.mode == "F" or image.mode.startswith("I")  # convert would clip these at 255
        if image.has_transparency_data and not deep:
            image = image.convert("LA" if image.mode == "LA" else "RGBA")
            alpha = image.getchannel("A")
            if alpha.getextrema()[1]:
                image = ImageChops.multiply(image.convert("L"), alpha)  # over black
            else:
                warn(name, "its transparency hides all of it, and is left out")
        if not deep:
            image = image.convert("L")
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, ...
        raise unusable(name, "its picture is damaged or cut short") from None
    if several:
        warn(name, "it has several frames, the first is used")
    if deep:
        array = np.asarray(image)
        if image.mode == "I" and array.min() >= 0 and array.max() < 2**16:  # 16-bit PNM
            array = array.astype(np.uint16)
        return _array_to_grey(array, name)
    return image


def _array_to_grey(array: np.ndarray, name: str) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[0] in _CHANNELS and shape[2] not in _CHANNELS:  # as PyTorch has them
        array = np.ascontiguousarray(np.moveaxis(array, 0, 2))
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)) or array.size == 0:
        raise unusable(name, f"its shape is {shape}, not (h, w) or that with 1, 3 or 4 channels last or first")
    if array.dtype == np.uint16:
        array = apply_table(_grey_levels_of_16_bits(array, name), array)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise unusable(name, "its floats are not all in [0, 1]")
        grey = np.empty(array.shape, np.uint8)
        for row, values in zip(grey, array, strict=True):  # a whole picture at once would be held three times
            row[...] = np.rint(values * 255)
        array = grey
    elif array.dtype != np.uint8:
        raise unusable(name, f"its {array.dtype} values have no known range; give uint8, uint16 or floats in [0, 1]")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _picture_to_grey(Image.fromarray(array), name)


def _grey_levels_of_16_bits(array: np.ndarray, name: str) -> np.ndarray:
    """(65536,) uint8: by the full range, or by that of 15 bits or fewer where the values need no more."""
    low, high = int(array.min()), int(array.max())
    bits = max(high.bit_length(), 8)
    if bits == 16 or low == high:  # one value says nothing about its range
        bits = 16
    else:
        warn(name, f"it has 16 bits a pixel, its values need {bits}; they are scaled by the range of these")
    return np.rint(np.minimum(np.arange(2**16) / (2**bits - 1), 1) * 255).astype(np.uint8)
