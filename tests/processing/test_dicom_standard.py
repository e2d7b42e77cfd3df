"""A second way from a DICOM data set to 8-bit grey, written from the formulas of PS3.3 and PS3.5, pixel by pixel.

`processing.dicom` computes one table for all values that can be stored; the reference here computes every pixel in
float64 and knows nothing of tables, blocks or codecs. Both must agree within one grey level on synthetic files and on
every readable real one. Where the standard leaves a choice, the reference does what `dicom_to_radiograph` documents.
"""

import warnings
from io import BytesIO
from itertools import product

import imagecodecs
import jpeg_ls
import numpy as np
import pydicom
import pytest
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph

# --- The reference ---------------------------------------------------------------------------------------------------


def sign_extended(codes: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """The values that the low `bits` of `codes` stand for (PS3.5 8.1.1)."""
    values = codes.astype(np.int64) & (2**bits - 1)
    return np.where(signed & (values >= 2 ** (bits - 1)), values - 2**bits, values)


def read_stored_values(dataset: Dataset) -> np.ndarray:
    """First frame of uncompressed pixel data (PS3.5 8.1.1, 8.2, annex A): (rows, columns, samples)."""
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    count, data = rows * columns * samples, dataset.PixelData
    big_endian = not dataset.original_encoding[1]
    if dataset.BitsAllocated == 8:
        codes = np.frombuffer(data, np.uint8)
        if big_endian and dataset["PixelData"].VR == "OW":  # 16-bit words of two pixels each
            codes = codes.reshape(-1, 2)[:, ::-1].ravel()
    else:
        codes = np.frombuffer(data, f"{'>' if big_endian else '<'}u{dataset.BitsAllocated // 8}")
    if dataset.PhotometricInterpretation == "YBR_FULL_422":  # PS3.3 C.7.6.3.1.2: two Y, one Cb, one Cr for two pixels
        pairs = codes[: count * 2 // 3].reshape(rows, columns // 2, 4)
        chroma = np.repeat(pairs[..., 2:], 2, axis=1)
        codes = np.concatenate([pairs[..., :2].reshape(rows, columns, 1), chroma], axis=-1)
    elif samples == 3 and dataset.PlanarConfiguration == 1:
        codes = codes[:count].reshape(samples, rows, columns).transpose(1, 2, 0)
    else:
        codes = codes[:count].reshape(rows, columns, samples)
    return sign_extended(codes, dataset.BitsStored, dataset.PixelRepresentation == 1)


def look_up(
    values: np.ndarray, item: Dataset, prefix: str, first_is_signed: bool, big_endian: bool
) -> tuple[np.ndarray, int]:
    """What the LUT gives for `values`, and the bits of its entries (PS3.3 C.11.1.1, C.11.2.1.1)."""
    entries, first, bits = (int(value) % 2**16 for value in item[f"{prefix}Descriptor"].value)
    first = first - 2**16 if first_is_signed and first >= 2**15 else first
    data = item[f"{prefix}Data"].value
    if isinstance(data, bytes):
        data = np.frombuffer(data, f"{'>' if big_endian else '<'}u2" if len(data) >= 2 * entries else np.uint8)
    table = np.asarray(data, dtype=np.float64)[: entries or 2**16]
    return table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)], bits


def first_value(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def window_output(x: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """0 to 255 (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (x - centre) / width))
    if function == "LINEAR_EXACT":
        inside = ((x - centre) / width + 0.5) * 255
        return np.where(x <= centre - width / 2, 0, np.where(x > centre + width / 2, 255, inside))
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    inside = ((x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5) * 255
    return np.where(x <= low, 0, np.where(x > high, 255, inside))


def monochrome_greys(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Modality LUT or rescale, VOI LUT or window or full range, inversion of MONOCHROME1 (PS3.3 C.11.1, C.11.2)."""
    signed, big_endian = dataset.PixelRepresentation == 1, not dataset.original_encoding[1]
    slope, intercept = first_value(dataset, "RescaleSlope"), first_value(dataset, "RescaleIntercept")
    centre, width = first_value(dataset, "WindowCenter"), first_value(dataset, "WindowWidth")
    if dataset.get("ModalityLUTSequence"):
        values, _ = look_up(stored, dataset.ModalityLUTSequence[0], "LUT", signed, big_endian)
        input_is_signed = False
    else:
        values = stored * (1.0 if slope is None else slope) + (intercept or 0.0)
        lowest = -(2 ** (dataset.BitsStored - 1)) if signed else 0
        ends = np.array([lowest, lowest + 2**dataset.BitsStored - 1])
        input_is_signed = (ends * (1.0 if slope is None else slope) + (intercept or 0.0)).min() < 0
    if dataset.get("VOILUTSequence"):
        output, bits = look_up(values, dataset.VOILUTSequence[0], "LUT", input_is_signed, big_endian)
        greys = output / (2**bits - 1) * 255
    elif centre is not None and width is not None and width > 0:
        greys = window_output(values, centre, width, dataset.get("VOILUTFunction") or "LINEAR")
    elif dataset.BitsStored == 8 and not signed:
        greys = stored.astype(np.float64)
    else:
        padding, limit = first_value(dataset, "PixelPaddingValue"), first_value(dataset, "PixelPaddingRangeLimit")
        limit = padding if limit is None else limit
        kept = values if padding is None else values[(stored < min(padding, limit)) | (stored > max(padding, limit))]
        greys = np.clip((values - kept.min()) / (kept.max() - kept.min()) * 255, 0, 255)
    return 255 - greys if dataset.PhotometricInterpretation == "MONOCHROME1" else greys


def reference_greys(dataset: Dataset, stored: np.ndarray | None = None) -> np.ndarray:
    """(rows, columns) of float64 greys, 0 to 255.

    Args:
        dataset: as read from its file.
        stored: (rows, columns) or (rows, columns, samples) of stored values; those of uncompressed pixel data are read
            here. Colour as the stream has it: RGB where JPEG 2000 transforms it (YBR_RCT, YBR_ICT).
    """
    photometric = dataset.PhotometricInterpretation
    if stored is None:
        stored = read_stored_values(dataset)
    elif photometric in ("YBR_RCT", "YBR_ICT"):
        photometric = "RGB"
    stored = stored.reshape(dataset.Rows, dataset.Columns, -1)
    if photometric.startswith("MONOCHROME"):
        return monochrome_greys(stored[..., 0], dataset)
    if photometric == "PALETTE COLOR":  # PS3.3 C.7.6.3.1.5
        samples, big_endian = [], not dataset.original_encoding[1]
        for colour in ("Red", "Green", "Blue"):
            output, bits = look_up(stored[..., 0], dataset, f"{colour}PaletteColorLookupTable", False, big_endian)
            samples.append(output / (2**bits - 1) * 255)
    else:
        samples = list(np.moveaxis(stored / (2**dataset.BitsStored - 1) * 255, -1, 0))
    if photometric.startswith("YBR"):  # Y of PS3.3 C.7.6.3.1.2 is the luminance of ITU-R BT.601
        return samples[0]
    return 0.299 * samples[0] + 0.587 * samples[1] + 0.114 * samples[2]


# --- Files to compare on ---------------------------------------------------------------------------------------------


def make_dataset(stored: np.ndarray, bits: int, syntax=uid.ExplicitVRLittleEndian, allocated=None, **tags) -> Dataset:
    """A radiograph of these stored values, (rows, columns) or (rows, columns, 3); little endian, uncompressed."""
    stored = np.asarray(stored)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = allocated or (8 if bits <= 8 else 16)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.min() < 0)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    set_pixel_data(dataset, stored)
    return dataset


def set_pixel_data(dataset: Dataset, stored: np.ndarray) -> None:
    big_endian = dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRBigEndian
    words = stored.astype(f"{'>' if big_endian else '<'}i{dataset.BitsAllocated // 8}")
    data = words.tobytes()
    dataset.add_new("PixelData", "OB" if dataset.BitsAllocated == 8 else "OW", data + bytes(len(data) % 2))


def set_stream(dataset: Dataset, *frames: bytes, fragments: int = 1) -> Dataset:
    dataset.add_new("PixelData", "OB", encapsulate(list(frames), fragments_per_frame=fragments))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def lut(entries: np.ndarray, first: int, bits: int, signed: bool) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries).astype("<u2").tobytes())
    return [item]


def every_value(bits: int, signed: bool, seed: int = 0) -> np.ndarray:
    """Every value that can be stored, at random places of a picture about as wide as high."""
    values = np.random.default_rng(seed).permutation(2**bits) - (2 ** (bits - 1) if signed else 0)
    return values.reshape(2 ** (bits // 2), -1)


def load(file: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several frames, body part
        return np.asarray(load_radiograph(file), dtype=np.float64)


def check(file: bytes, case: str = "", stored: np.ndarray | None = None) -> None:
    """`load_radiograph` and the reference differ by one grey level at most."""
    check_greys(load(file), file, case, stored)


def check_greys(found: np.ndarray, file: bytes, case: str = "", stored: np.ndarray | None = None) -> None:
    with np.errstate(over="ignore"):  # SIGMOID, far below its window
        expected = reference_greys(pydicom.dcmread(BytesIO(file), force=True), stored)
    assert found.shape == expected.shape, case
    difference = np.abs(found - expected)
    assert difference.max() <= 1, f"{difference.max():.2f} grey levels at pixel {np.argmax(difference)}; {case}"


# --- Modality and VOI ------------------------------------------------------------------------------------------------

RESCALE = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}


def modality_tags(kind: str, bits: int, signed: bool) -> tuple[dict, float, float]:
    """The tags, and the ends of what they make of the stored values."""
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    if kind == "none":
        return {}, low, high
    if kind == "rescale":
        return RESCALE, 2 * low - 1024, 2 * high - 1024
    if kind == "negative slope":
        return {"RescaleSlope": "-0.75", "RescaleIntercept": "12.5"}, 12.5 - 0.75 * high, 12.5 - 0.75 * low
    # A curve over about half of the stored values; those outside get its ends.
    entries = 500 + 3000 * np.linspace(0, 1, min(2 ** (bits - 1), 30000)) ** 2
    tags = {"ModalityLUTSequence": lut(entries, low + 2 ** (bits - 2), 16, signed)}
    return tags | (RESCALE if kind == "table and rescale" else {}), 500, 3500


def voi_tags(kind: str, low: float, high: float, table_is_signed: bool) -> dict:
    """A window or table over about the middle of low to high."""
    centre, width = low + 0.45 * (high - low), 0.6 * (high - low)
    window = {"WindowCenter": f"{centre:.3f}", "WindowWidth": f"{width:.3f}"}
    if kind == "none":
        return {}
    if kind == "several windows":
        return {"WindowCenter": [f"{centre:.3f}", "40"], "WindowWidth": [f"{width:.3f}", "400"]}
    if kind == "table":
        first, count = max(int(low + 0.2 * (high - low)), -30000), min(int(0.5 * (high - low)), 30000)
        curve = (4095 * np.linspace(0, 1, count) ** 0.8).astype(int)
        return window | {"VOILUTSequence": lut(curve, first, 12, table_is_signed)}
    return window | ({} if kind == "default" else {"VOILUTFunction": kind})


@pytest.mark.parametrize("modality", ["none", "rescale", "negative slope", "table", "table and rescale"])
@pytest.mark.parametrize("voi", ["none", "default", "LINEAR", "LINEAR_EXACT", "SIGMOID", "several windows", "table"])
def test_every_stored_value_gets_the_grey_of_the_formulas(voi, modality):
    for bits, signed, photometric in product((8, 10, 12, 14, 16), (False, True), ("MONOCHROME1", "MONOCHROME2")):
        if voi == "none" and bits == 8 and (signed or modality != "none"):
            continue  # ready to display or not: no rule says
        if voi != "none" and bits != 12 and (photometric == "MONOCHROME1") != (signed == (bits == 14)):
            continue  # one of the two is enough where a window or table says what is black
        tags, low, high = modality_tags(modality, bits, signed)
        tags = tags | voi_tags(voi, low, high, table_is_signed=low < 0)
        stored = every_value(bits, signed)
        source = to_bytes(make_dataset(stored, bits, PhotometricInterpretation=photometric, **tags))
        check(source, f"{bits} bits, signed {signed}, {photometric}")


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_first_input_of_a_voi_lut_is_signed_where_the_rescaled_values_may_be(syntax):
    """Implicit VR does not say US or SS; many writers say US throughout (PS3.3 C.11.2.1.1)."""
    stored = every_value(12, signed=False)
    dataset = make_dataset(stored, 12, syntax, RescaleSlope="1", RescaleIntercept="-1024")
    dataset.VOILUTSequence = lut(np.arange(2000) * 2, 2**16 - 500, 12, signed=False)
    check(to_bytes(dataset))


def test_first_input_of_a_voi_lut_is_unsigned_behind_a_modality_lut():
    dataset = make_dataset(every_value(12, signed=True), 12)
    dataset.ModalityLUTSequence = lut(36000 + np.arange(4096), -2048, 16, signed=True)
    dataset.VOILUTSequence = lut(np.arange(2000) * 2, 37000, 12, signed=False)
    check(to_bytes(dataset))


def test_voi_lut_of_65536_entries_says_0():
    dataset = make_dataset(every_value(16, signed=False), 16, VOILUTSequence=lut(np.arange(2**16) // 2, 0, 15, False))
    assert dataset.VOILUTSequence[0].LUTDescriptor[0] == 0
    check(to_bytes(dataset))


# --- Stored values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_of_any_kind_is_left_out_of_the_range(photometric, signed):
    low = -2048 if signed else 0
    stored = np.random.default_rng(1).integers(low + 700, low + 3000, (31, 45))
    for padding, limit in (
        (low, None),
        (low + 4095, None),
        (low, low + 600),
        (low + 600, low),
        (low + 3200, low + 4095),
    ):
        stored[:5], stored[5:9] = padding, padding if limit is None else limit
        stored[9:12] = (padding + (padding if limit is None else limit)) // 2
        for tags in (
            {},
            RESCALE,
            {"RescaleSlope": "-0.5"},
            {"ModalityLUTSequence": lut(np.arange(4096), low, 16, signed)},
        ):
            dataset = make_dataset(stored, 12, PhotometricInterpretation=photometric, **tags)
            vr = "SS" if signed else "US"
            dataset.add_new("PixelPaddingValue", vr, padding)
            if limit is not None:
                dataset.add_new("PixelPaddingRangeLimit", vr, limit)
            check(to_bytes(dataset), f"padding {padding}, {limit}, {list(tags)}")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "allocated"), [(5, 8), (8, 16), (10, 16), (12, 16), (15, 16), (12, 32), (16, 32)])
def test_bits_that_are_not_stored_are_ignored(bits, allocated, signed):
    stored = np.random.default_rng(bits).integers(0, 2**bits, (24, 41)) - (2 ** (bits - 1) if signed else 0)
    junk = (stored % 2**bits) | np.random.default_rng(0).integers(0, 2 ** (allocated - bits), stored.shape) << bits
    tags = {"WindowCenter": stored.mean(), "WindowWidth": 2.0 ** (bits - 1)}
    dataset = make_dataset(stored, bits, allocated=allocated, **tags)
    dataset.PixelData = junk.astype(f"<u{allocated // 8}").tobytes()
    dataset["PixelData"].VR = "OW"
    assert np.array_equal(read_stored_values(pydicom.dcmread(BytesIO(to_bytes(dataset))))[..., 0], stored)
    check(to_bytes(dataset))


# --- Transfer syntaxes -----------------------------------------------------------------------------------------------

UNCOMPRESSED = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
]


def smooth_values(bits: int, signed: bool, shape: tuple[int, int] = (37, 53)) -> np.ndarray:
    """Something like a radiograph: smooth, with a little noise, over nearly all of the values, both ends taken."""
    y, x = np.mgrid[: shape[0], : shape[1]] / 30
    field = np.sin(3 * x + 1) * np.cos(2 * y) + 0.02 * np.random.default_rng(3).standard_normal(shape)
    field = (field - field.min()) / (field.max() - field.min())
    return np.rint(field * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)


def window_over(bits: int, signed: bool) -> dict:
    """A window whose edges lie on both sides of zero for signed values, and whose middle no sign error can leave."""
    return {"WindowCenter": (0 if signed else 2 ** (bits - 1)) + 3, "WindowWidth": 0.8 * 2**bits}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "vr"), [(8, "OB"), (8, "OW"), (12, "OW"), (16, "OW")])
@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda syntax: syntax.keyword)
def test_uncompressed_pixels_of_an_odd_number_in_any_byte_order(syntax, bits, vr, signed):
    stored = smooth_values(bits, signed)
    dataset = make_dataset(stored, bits, syntax, **window_over(bits, signed))
    if (bits, vr, syntax) == (8, "OW", uid.ExplicitVRBigEndian):
        data = dataset.PixelData
        dataset.PixelData = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = vr
    file = to_bytes(dataset)
    assert np.array_equal(read_stored_values(pydicom.dcmread(BytesIO(file)))[..., 0], stored)
    check(file)


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda syntax: syntax.keyword)
def test_tables_have_the_byte_order_of_the_file(syntax, vr):
    dataset = make_dataset(every_value(10, signed=True), 10, syntax)
    dataset.ModalityLUTSequence = lut(np.arange(1024) * 3, -512, 16, signed=True)
    dataset.VOILUTSequence = lut(65535 - np.arange(3000) * 20, 100, 16, signed=False)
    for sequence in (dataset.ModalityLUTSequence, dataset.VOILUTSequence):
        entries = np.frombuffer(sequence[0].LUTData, "<u2")
        swapped = entries.astype(">u2" if syntax == uid.ExplicitVRBigEndian else "<u2").tobytes()
        sequence[0].add_new("LUTData", vr, swapped if vr == "OW" else entries.tolist())
    check(to_bytes(dataset))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_file_without_preamble_or_meta_information(syntax):
    dataset = make_dataset(smooth_values(12, True), 12, syntax, **window_over(12, True))
    del dataset.file_meta
    file = BytesIO()
    dataset.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    check(file.getvalue())


def unsigned(stored: np.ndarray, bits: int) -> np.ndarray:
    """The pixel cells as a codec without signs sees them, bits that are not stored zero."""
    return (stored % 2**bits).astype(np.uint8 if bits <= 8 else np.uint16)


def sign_filled(stored: np.ndarray) -> np.ndarray:
    """The pixel cells of 16 bits, bits that are not stored filled with the sign."""
    return (stored % 2**16).astype(np.uint16)


def typed(stored: np.ndarray, bits: int) -> np.ndarray:
    return stored.astype(f"{'i' if stored.min() < 0 else 'u'}{1 if bits <= 8 else 2}")


def jpeg_lossless(cells: np.ndarray, bits: int, predictor: int = 1) -> bytes:
    return imagecodecs.jpeg8_encode(cells, lossless=True, predictor=predictor, bitspersample=bits)


def jpeg2000(cells: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(cells, codecformat="j2k", bitspersample=bits, reversible=True)


LOSSLESS = {
    "JPEG lossless, first order": (uid.JPEGLosslessSV1, lambda v, bits: jpeg_lossless(unsigned(v, bits), bits)),
    "JPEG lossless, predictor 6": (uid.JPEGLossless, lambda v, bits: jpeg_lossless(unsigned(v, bits), bits, 6)),
    "JPEG lossless, 16-bit cells": (uid.JPEGLossless, lambda v, bits: jpeg_lossless(sign_filled(v), 16, 4)),
    "JPEG lossless, other encoder": (
        uid.JPEGLossless,
        lambda v, bits: imagecodecs.ljpeg_encode(unsigned(v, bits).astype(np.uint16), bitspersample=bits),
    ),
    "JPEG-LS": (uid.JPEGLSLossless, lambda v, bits: imagecodecs.jpegls_encode(unsigned(v, bits))),
    "JPEG-LS, 16-bit cells": (uid.JPEGLSLossless, lambda v, bits: imagecodecs.jpegls_encode(sign_filled(v))),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda v, bits: jpeg2000(typed(v, bits), bits)),
    "JPEG 2000, stream without sign": (uid.JPEG2000Lossless, lambda v, bits: jpeg2000(unsigned(v, bits), bits)),
    "JPEG 2000, 16-bit cells": (uid.JPEG2000Lossless, lambda v, bits: jpeg2000(typed(v, 16), 16)),
    "JPEG 2000 as JP2": (
        uid.JPEG2000Lossless,
        lambda v, bits: imagecodecs.jpeg2k_encode(
            typed(v, bits), codecformat="jp2", bitspersample=bits, reversible=True
        ),
    ),
}
if hasattr(imagecodecs, "htj2k_encode"):  # the last release for Python 3.10 has no such encoder
    LOSSLESS["HTJ2K"] = (
        uid.HTJ2KLossless,
        lambda v, bits: imagecodecs.htj2k_encode(typed(v, bits), reversible=True),
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("encoding", LOSSLESS)
def test_lossless_stream_gives_the_greys_of_its_stored_values(encoding, signed):
    syntax, encode = LOSSLESS[encoding]
    for bits in (8, 10, 12, 15, 16):
        stored = smooth_values(bits, signed)
        dataset = make_dataset(stored, bits, syntax, **window_over(bits, signed))
        if "16-bit" in encoding or "other encoder" in encoding:
            dataset.BitsAllocated = 16
        stream = encode(stored, bits)
        check(to_bytes(set_stream(dataset, stream + bytes(len(stream) % 2))), f"{bits} bits", stored)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_stream_of_pydicoms_encoder_without_a_window(syntax, photometric, bits, signed):
    stored = smooth_values(bits, signed)[:, :-1]
    dataset = make_dataset(stored, bits, PhotometricInterpretation=photometric)
    dataset.compress(syntax)
    if not (bits == 8 and signed):
        check(to_bytes(dataset), stored=stored)


def decoded_by_pydicom(file: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(BytesIO(file))
    return get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, raw=True)[0].astype(np.int64)


def lossy_cases():
    for bits, signed in product((8, 12, 16), (False, True)):
        yield "JPEG-LS near-lossless", uid.JPEGLSNearLossless, bits, signed
        yield "JPEG 2000", uid.JPEG2000, bits, signed
    yield "JPEG baseline", uid.JPEGBaseline8Bit, 8, False
    yield "JPEG extended", uid.JPEGExtended12Bit, 8, False


@pytest.mark.parametrize(("name", "syntax", "bits", "signed"), list(lossy_cases()))
def test_lossy_stream_gives_the_greys_of_what_another_decoder_reads(name, syntax, bits, signed):
    stored = smooth_values(bits, signed)
    dataset = make_dataset(stored, bits, syntax, **window_over(bits, signed))
    stream = {
        uid.JPEGLSNearLossless: lambda: jpeg_ls_near_lossless(stored, bits),
        uid.JPEG2000: lambda: imagecodecs.jpeg2k_encode(
            typed(stored, bits), level=45, codecformat="j2k", bitspersample=bits, reversible=False
        ),
    }.get(syntax, lambda: imagecodecs.jpeg8_encode(stored.astype(np.uint8), level=80))()
    file = to_bytes(set_stream(dataset, stream + bytes(len(stream) % 2)))
    decoded = decoded_by_pydicom(file)
    assert not np.array_equal(decoded, stored)
    check(file, stored=decoded)


def jpeg_ls_near_lossless(stored: np.ndarray, bits: int) -> bytes:
    cells = unsigned(stored, bits)
    return bytes(jpeg_ls.encode_buffer(cells.tobytes(), *cells.shape, 1, bits, lossy_error=3))


def test_loss_beyond_the_stored_range_does_not_wrap_around():
    """Encoders that call 12-bit values 16-bit ones let the loss carry 4095 to 4098, which is white and not black."""
    stored = smooth_values(12, False)
    dataset = make_dataset(stored, 12, uid.JPEGLSNearLossless, **window_over(12, False))
    stream = imagecodecs.jpegls_encode(stored.astype(np.uint16), level=3)
    file = to_bytes(set_stream(dataset, stream + bytes(len(stream) % 2)))
    decoded = decoded_by_pydicom(file)
    assert decoded.max() > 4095
    check(file, stored=decoded.clip(0, 4095))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_jpeg_of_12_bits_is_within_its_loss(photometric):
    """No other decoder at hand reads it; at the best quality the stream is exact within a few of 4096 values."""
    stored = smooth_values(12, False)
    dataset = make_dataset(stored, 12, uid.JPEGExtended12Bit, PhotometricInterpretation=photometric)
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    check(to_bytes(set_stream(dataset, jpeg_12_bits(stored))), stored=stored)


def jpeg_12_bits(stored: np.ndarray) -> bytes:
    stream = imagecodecs.jpeg8_encode(stored.astype(np.uint16), level=100, bitspersample=12)
    return stream + bytes(len(stream) % 2)


@pytest.mark.parametrize("seed", range(60))
def test_any_of_these_together(seed):
    rng = np.random.default_rng(seed)
    signed, bits = bool(rng.integers(2)), int(rng.integers(9, 17))
    modality = rng.choice(["none", "rescale", "negative slope", "table"])
    voi = rng.choice(["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "several windows", "table"])
    tags, low, high = modality_tags(modality, bits, signed)
    tags = tags | voi_tags(voi, low, high, table_is_signed=low < 0)
    tags["PhotometricInterpretation"] = f"MONOCHROME{rng.integers(1, 3)}"
    stored = smooth_values(bits, signed, tuple(int(n) for n in rng.integers(8, 60, 2)))
    stored[: rng.integers(4), :] = padding = int(stored.max() if rng.integers(2) else stored.min())
    encoding = rng.choice([*LOSSLESS, *(syntax.keyword for syntax in UNCOMPRESSED)])
    syntax, encode = LOSSLESS.get(encoding, (getattr(uid, encoding, None), None))
    dataset = make_dataset(stored, bits, syntax, PixelRepresentation=int(signed), **tags)
    if rng.integers(2):
        dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
    if encode:
        stream = encode(stored, bits)
        set_stream(dataset, stream + bytes(len(stream) % 2))
    check(to_bytes(dataset), f"{encoding}, {bits} bits, signed {signed}, {modality}, {voi}", stored)


# --- Colour, frames --------------------------------------------------------------------------------------------------


def colours(shape: tuple[int, int] = (21, 34), top: int = 255) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]] / 10
    waves = np.stack([np.sin(x + y), np.cos(2 * x - y), np.sin(x - 2 * y + 1)], axis=-1)
    return np.rint((waves * 0.5 + 0.5) * top).astype(np.int64)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_colour_by_pixel_and_by_plane_becomes_luminance(syntax, planar, photometric):
    # YBR_FULL: every combination of samples that is a colour, so that no decoder has to clip it.
    samples = colours() if photometric == "RGB" else 100 + colours(top=55)
    if syntax == uid.RLELossless:  # always by plane, whatever PlanarConfiguration says (PS3.5 annex G)
        dataset = make_dataset(samples, 8, PhotometricInterpretation=photometric)
        dataset.compress(syntax)
        dataset.PlanarConfiguration = planar
        check(to_bytes(dataset), stored=samples)
    else:
        dataset = make_dataset(samples, 8, syntax, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
        set_pixel_data(dataset, samples.transpose(2, 0, 1) if planar else samples)
        check(to_bytes(dataset))


def test_colour_of_16_bits_becomes_luminance():
    check(to_bytes(make_dataset(colours(top=65535), 16)))
    check(to_bytes(make_dataset(colours(top=4095), 12)))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_subsampled_colour_becomes_luminance(syntax):
    samples = 100 + colours(top=55)
    dataset = make_dataset(samples, 8, syntax, PhotometricInterpretation="YBR_FULL_422")
    chroma = samples[:, ::2, 1:]
    pairs = np.concatenate([samples[..., 0].reshape(21, 17, 2), chroma], axis=-1)
    set_pixel_data(dataset, pairs)
    check(to_bytes(dataset))


COLOUR_STREAMS = {
    "JPEG, YBR": (uid.JPEGBaseline8Bit, "YBR_FULL_422", lambda rgb: imagecodecs.jpeg8_encode(rgb, level=95)),
    "JPEG, RGB": (
        uid.JPEGBaseline8Bit,
        "RGB",
        lambda rgb: imagecodecs.jpeg8_encode(rgb, level=98, colorspace="RGB", outcolorspace="RGB"),
    ),
    "JPEG lossless": (uid.JPEGLosslessSV1, "RGB", lambda rgb: imagecodecs.jpeg8_encode(rgb, lossless=True)),
    "JPEG-LS": (uid.JPEGLSLossless, "RGB", lambda rgb: imagecodecs.jpegls_encode(rgb)),
    "JPEG 2000, RCT": (uid.JPEG2000Lossless, "YBR_RCT", lambda rgb: jpeg2000(rgb, 8)),
    "JPEG 2000, RGB": (
        uid.JPEG2000Lossless,
        "RGB",
        lambda rgb: imagecodecs.jpeg2k_encode(rgb, codecformat="j2k", reversible=True, mct=False),
    ),
    "JPEG 2000, ICT": (
        uid.JPEG2000,
        "YBR_ICT",
        lambda rgb: imagecodecs.jpeg2k_encode(rgb, level=60, codecformat="j2k", reversible=False),
    ),
}


@pytest.mark.parametrize("encoding", COLOUR_STREAMS)
def test_compressed_colour_becomes_luminance(encoding):
    syntax, photometric, encode = COLOUR_STREAMS[encoding]
    rgb = 70 + colours((48, 64), top=100)  # far from the ends, where a decoder clips
    stream = encode(rgb.astype(np.uint8))
    dataset = make_dataset(rgb, 8, syntax, PhotometricInterpretation=photometric)
    file = to_bytes(set_stream(dataset, stream + bytes(len(stream) % 2)))
    lossy = syntax in (uid.JPEGBaseline8Bit, uid.JPEG2000)
    check(file, stored=decoded_by_pydicom(file) if lossy else rgb)


@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (8, 16), (16, 16)])
@pytest.mark.parametrize("entry_bits", [8, 16])
def test_palette_gives_the_luminance_of_its_colours(bits, allocated, entry_bits):
    stored = every_value(bits, signed=False)
    dataset = make_dataset(stored, bits, allocated=allocated, PhotometricInterpretation="PALETTE COLOR")
    rng = np.random.default_rng(entry_bits)
    for colour in ("Red", "Green", "Blue"):
        entries = rng.integers(0, 2**entry_bits, 200).astype(f"<u{entry_bits // 8}")
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [200, 20, entry_bits])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
    check(to_bytes(dataset))


@pytest.mark.parametrize(
    ("syntax", "fragments"),
    [
        (uid.RLELossless, 1),  # a frame of RLE is one fragment (PS3.5 annex G)
        (uid.JPEGLSLossless, 1),
        (uid.JPEGLSLossless, 3),
        (uid.JPEG2000Lossless, 1),
        (uid.JPEG2000Lossless, 3),
    ],
)
def test_first_of_several_frames_in_any_number_of_fragments(syntax, fragments):
    values = smooth_values(12, False)[:, :-1]
    streams = []
    for frame in (values, values[::-1]):
        dataset = make_dataset(frame, 12, WindowCenter=2000, WindowWidth=4000)
        dataset.compress(syntax)
        streams.append(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
    set_stream(dataset, *streams, fragments=fragments).NumberOfFrames = 2
    check(to_bytes(dataset), stored=values)


# --- Real files ------------------------------------------------------------------------------------------------------


def test_every_readable_real_file_has_the_greys_of_the_formulas(real_cxr):
    compared = []
    for folder in ("dicom_cxr", "dicom_derived", "dicom_odd"):
        for path in sorted((real_cxr / "real_cxr" / folder).glob("*.dcm")):
            file = path.read_bytes()
            try:
                found = load(file)
            except RadiographError:
                continue
            meta = pydicom.dcmread(path, force=True, specific_tags=[]).file_meta
            syntax = meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
            check_greys(found, file, path.name, decoded_by_pydicom(file) if syntax.is_compressed else None)
            compared.append(path.name)
    assert len(compared) >= 20
