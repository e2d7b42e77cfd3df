import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from litegpt.datasets_scripts.phantom_cxr import encode_dicom
from litegpt.datasets_scripts.phantoms.picture import draw_phantom
from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph, squash_radiograph

SIZES = ((64, 64), (80, 96))


def greys(source) -> list[int]:
    return np.asarray(load_radiograph(source)).ravel().tolist()


def to_picture(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def phantom_file(syntax: uid.UID, size: tuple[int, int], with_window: bool = True) -> bytes:
    """A phantom as a DICOM file of this transfer syntax; how a phantom is encoded depends on the seed alone."""
    pixels = draw_phantom(np.random.default_rng(3), size).pixels
    for seed in range(1000):
        dataset = encode_dicom(np.eye(64), "0" * 32, np.random.default_rng(seed))
        if dataset.file_meta.TransferSyntaxUID == syntax and ("WindowCenter" in dataset) == with_window:
            break
    file = BytesIO()
    encode_dicom(pixels, "0" * 32, np.random.default_rng(seed)).save_as(file, enforce_file_format=True)
    return file.getvalue()


# --- Squashed to the towers' sizes -----------------------------------------------------------------------------------

SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEGLosslessSV1,
    uid.JPEG2000Lossless,
)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("windowing", ["dicom", "paper"])
def test_squashed_is_exactly_the_full_picture_resized(syntax, windowing):
    file = phantom_file(syntax, (301, 403))
    full = load_radiograph(file, windowing)
    squashed = squash_radiograph(file, SIZES, windowing=windowing)
    assert squashed.size == full.size == (301, 403)
    for size in SIZES:
        assert squashed.pictures[size] == full.resize(size, Image.Resampling.BICUBIC)


def test_a_size_that_two_towers_share_is_resized_to_once(monkeypatch):
    calls, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *args, **kwargs: calls.append(args) or resize(*args, **kwargs))
    squash_radiograph(np.zeros((90, 90), np.uint8), [SIZES[0], SIZES[0], SIZES[1]])
    assert len(calls) == 2


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("size", [(1000, 1203), (1001, 999)])
def test_fast_is_nearly_the_exact_picture_and_not_shifted(syntax, size):
    file = phantom_file(syntax, size)
    exact, fast = (squash_radiograph(file, SIZES[:1], fast=option) for option in (False, True))
    assert fast.size == size
    difference = np.asarray(fast.pictures[SIZES[0]], int) - np.asarray(exact.pictures[SIZES[0]], int)
    # JPEG 2000 three levels down without the correction of its phase would be off by 3 on average, by 100 at most.
    assert 0 < abs(difference).mean() < 0.8 and abs(difference).max() <= 40
    if syntax != uid.JPEG2000Lossless:
        reduced = load_radiograph(file).resize(SIZES[0], Image.Resampling.BICUBIC, reducing_gap=3.0)
        assert fast.pictures[SIZES[0]] == reduced


def test_fast_decodes_jpeg_2000_at_a_lower_resolution_and_two_threads_change_nothing(monkeypatch):
    import imagecodecs

    file = phantom_file(uid.JPEG2000Lossless, (600, 500))
    one, two = (squash_radiograph(file, SIZES, num_threads=number).pictures for number in (1, 2))
    assert one == two
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", lambda *_, **__: pytest.fail("decoded in full"))
    squash_radiograph(file, SIZES, fast=True)


def test_fast_takes_the_statistics_of_a_file_without_window_from_all_its_pixels():
    file = phantom_file(uid.JPEG2000Lossless, (900, 800), with_window=False)
    exact, fast = (squash_radiograph(file, SIZES[:1], fast=option).pictures[SIZES[0]] for option in (False, True))
    assert abs(np.asarray(fast, int) - np.asarray(exact, int)).mean() < 0.3


def test_fast_leaves_what_is_small_as_it_is():
    file = phantom_file(uid.JPEG2000Lossless, (100, 120))
    assert squash_radiograph(file, SIZES, fast=True) == squash_radiograph(file, SIZES)


def test_fast_reads_a_real_jpeg_2000_radiograph_of_odd_size(real_cxr):
    file = real_cxr / "real_cxr" / "dicom_cxr" / "RG1_J2KI.dcm"  # 1841 x 1955
    exact, fast = (squash_radiograph(file, [(224, 224)], fast=option) for option in (False, True))
    assert fast.size == exact.size == (1841, 1955)
    exact, fast = (np.asarray(squashed.pictures[224, 224], int) for squashed in (exact, fast))
    assert abs(fast - exact).mean() < 1 and abs(fast - exact).max() <= 40


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1])
def test_a_radiograph_is_left_alone_by_the_next_ones_also_in_other_threads(syntax):
    """They are decoded into memory that is used again."""
    files = [phantom_file(syntax, (90 + 10 * number, 100)) for number in range(4)]
    expected = [greys(file) for file in files]
    first = load_radiograph(files[0])
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(greys, files * 8)) == expected * 8
    assert np.asarray(first).ravel().tolist() == expected[0]


# --- What is no radiograph -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("https://example.org/radiograph.dcm", "it is a URL"),
        ("no_such_file.dcm", "no such file"),
        (os.curdir, "not a file"),
        (b"", "it is empty"),
        (b"\x1f\x8b\x08\0garbage", "neither a DICOM file nor a picture"),
        ("Lời bài hát ".encode() * 300, "neither a DICOM file nor a picture"),
        (bytes(range(256)) * 40, "neither a DICOM file nor a picture"),
        (bytes(128) + b"DICM", "no image"),
        (np.zeros((5, 8, 8), np.uint8), r"shape is \(5, 8, 8\)"),
        (np.zeros((0, 8), np.uint8), "shape"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.full((8, 8), 1.5), r"\[0, 1\]"),
        (np.full((8, 8), np.nan), r"\[0, 1\]"),
    ],
)
def test_what_is_no_radiograph_is_refused(source, reason):
    with pytest.raises(RadiographError, match=reason):
        load_radiograph(source)


def test_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RadiographError, match="not a file"):
        load_radiograph(tmp_path / "pipe")


def test_what_cannot_hold_a_radiograph_is_a_type_error():
    with pytest.raises(TypeError, match="not int"):
        load_radiograph(3)


# --- Pictures and arrays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_picture_is_scaled_not_clipped(format):
    image = Image.fromarray(np.uint16([[0, 257, 128 * 257, 65535]]))
    assert greys(to_picture(image, format)) == [0, 1, 128, 255]
    assert greys(image) == [0, 1, 128, 255]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000", "array"])
def test_16_bits_that_hold_fewer_are_scaled_by_what_is_there_with_a_warning(format, bits):
    values = np.uint16([[0, 2 ** (bits - 1), 2**bits - 1]])
    source = values if format == "array" else to_picture(Image.fromarray(values), format)
    if format == "JPEG2000" and bits == 8:
        pytest.skip("Pillow gives it as 8 bits")
    with pytest.warns(UserWarning, match=f"16 bits a pixel, its values need {bits}"):
        assert greys(source) == [0, 128, 255]


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_that_hold_12_keep_their_grey_levels(channels):
    import imagecodecs

    values = np.repeat(np.arange(0, 4096, 8, dtype=np.uint16).reshape(16, 32, 1), channels, axis=2)
    values[..., 3:] = 65535  # opaque
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = greys(imagecodecs.png_encode(values))
    assert abs(np.asarray(found) - np.arange(0, 4096, 8) / 4095 * 255).max() <= 0.51
    assert ["values need 12" in str(warning.message) for warning in caught] == [True]


def test_transparency_that_hides_everything_is_left_out():
    image = Image.merge("LA", [Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0)])
    with pytest.warns(UserWarning, match="its transparency hides all of it"):
        assert greys(to_picture(image)) == [200, 200]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[False, True]])), [0, 255]),
        (Image.fromarray(np.uint8([[[200, 200, 200, 255], [200, 200, 200, 0]]])), [200, 0]),
        (Image.fromarray(np.uint8([[[90, 90, 90], [255, 0, 0]]])), [90, 76]),
        (Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 51)]), [40]),
        (Image.fromarray(np.uint8([[0, 85, 170]])).convert("P"), [0, 85, 170]),
    ],
    ids=["1 bit", "RGBA", "RGB", "LA", "palette"],
)
def test_picture_of_any_mode_becomes_grey(image, expected):
    assert greys(to_picture(image)) == expected
    assert greys(image) == expected


def test_exif_orientation_is_applied():
    image = Image.fromarray(np.uint8([[10, 20]]))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    assert greys(to_picture(image, exif=exif)) == [20, 10]


def test_picture_bomb_is_refused_before_it_is_decoded():
    header = b"IHDR" + (12000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    png = to_picture(Image.new("L", (1, 1)))
    png = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    with pytest.raises(RadiographError, match="12000 x 12000"), pytest.warns(Image.DecompressionBombWarning):
        load_radiograph(png)


def test_picture_cut_short_in_its_second_frame_is_refused():
    """Pillow raises IndexError where it counts the frames of a GIF whose second palette is cut."""
    colours = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    first, second = (Image.fromarray(frame).quantize(256) for frame in colours)
    gif = to_picture(first, "GIF", save_all=True, append_images=[second])
    palette = gif.index(b"\x2c\0\0\0\0\x10\0\x10\0", 900) + 10
    with pytest.raises(RadiographError, match="damaged or cut short"):
        load_radiograph(gif[: palette + 100])


def test_arrays_are_scaled_by_the_range_of_their_type():
    assert greys(np.uint8([[0, 9, 255]])) == [0, 9, 255]
    assert greys(np.uint16([[0, 257, 65535]])) == [0, 1, 255]
    assert greys(np.array([[0, 0.2, 1]])) == [0, 51, 255]
    assert greys(np.array([[True, False]])) == [255, 0]
    assert greys(np.full((1, 2, 1), 0.2, np.float32)) == [51, 51]
    assert greys(np.full((1, 1, 3), 70 * 257, np.uint16)) == [70]


def test_given_image_and_array_are_left_as_they_were():
    image, array = Image.new("L", (2, 2), 5), np.full((2, 2), 5, np.uint8)
    load_radiograph(image).putpixel((0, 0), 9)
    load_radiograph(array).putpixel((0, 0), 9)
    assert image.getpixel((0, 0)) == 5 and array[0, 0] == 5
