"""One radiograph, as hospitals and people hand it over (DICOM, PNG, JPEG, array) -> an 8-bit grey PIL image.

The stored values of a DICOM file pass the Modality LUT (PS3.3 C.11.1), the VOI LUT or window (C.11.2) and the
inversion of MONOCHROME1 (C.7.6.3.1.2), computed once for every value that can be stored, then looked up by pixel.
A header is checked before pixels are allocated. pydicom's messages quote the values of tags, so none is passed on: an
error or warning never tells who the patient is.
"""

import importlib
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # rows x columns x samples, Pillow's own limit; a chest radiograph has 5 to 20 million
MAX_BYTES = 1 << 30

# SC files of film scanners say OT; PS3.3 C.7.3.1.1.1 has no code of its own for them.
_RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "OT")
_FRONTAL_VIEWS = ("PA", "AP")
_NOT_CHEST = frozenset(
    "ABDOMEN ANKLE ARM BREAST CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE "
    "LEG LSPINE MANDIBLE NECK PELVIS SHOULDER SKULL TOE WRIST".split()
)
# Pillow's other readers start programs (EPS) or recognise almost any bytes (TGA).
_RASTER_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")
_BLOCK = 64  # rows a step: NumPy turns an index array into 8 bytes a pixel, too much for a whole frame


class RadiographError(ValueError):
    """The radiograph cannot be used; the message is one sentence that names the file and the reason."""


def load_radiograph(source: Any, windowing: str = "dicom") -> Image.Image:
    """One radiograph in 8-bit grey, at its own size; air is black.

    Args:
        source: a file's path, its bytes, or a binary file object (DICOM, PNG, JPEG, GIF, BMP, TIFF, WebP, JPEG 2000,
            PNM; recognised by content, not by suffix); a `pydicom.Dataset`; a PIL image; or a NumPy array of shape
            (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA. Arrays are bool, uint8, uint16 (scaled by its full
            range, as 16-bit pictures are) or float in [0, 1]. Colour becomes luminance (ITU-R BT.601), transparent
            pixels lie over black, EXIF orientation is applied.
        windowing: "dicom" or "paper", see `dicom_to_radiograph`; other sources than DICOM don't depend on it.

    Returns:
        A PIL image of mode "L".

    Raises:
        RadiographError: the radiograph cannot be used: unreadable, damaged, larger than `MAX_PIXELS` or `MAX_BYTES`,
            of another modality, a URL, a folder.
        TypeError: `source` is none of these.

    Warns:
        UserWarning: the first of several frames is used, or what `dicom_to_radiograph` warns of.
    """
    _check_windowing(windowing)
    if isinstance(source, (str, os.PathLike)):
        return _load_path(os.fspath(source), windowing)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _load_file(BytesIO(source), "the given bytes", windowing)
    if isinstance(source, Image.Image):
        return _picture_to_grey(source, "the given image")
    if isinstance(source, np.ndarray):
        return _array_to_grey(source, "the given array")

    if type(source).__module__.partition(".")[0] == "pydicom":
        return dicom_to_radiograph(source, windowing)
    if callable(getattr(source, "read", None)):
        data = source.read(MAX_BYTES + 1)
        if not isinstance(data, bytes):
            raise TypeError("a radiograph's file object must be opened in binary mode")
        return _load_file(BytesIO(data), "the given file object", windowing)
    raise TypeError(
        "a radiograph is a path, bytes, a binary file object, a pydicom.Dataset, a PIL image or a NumPy array, "
        f"not {type(source).__name__}"
    )


def dicom_to_radiograph(dataset: Any, windowing: str = "dicom", name: str = "the given dataset") -> Image.Image:
    """One DICOM radiograph in 8-bit grey; the first frame where there are several.

    Args:
        dataset: with Pixel Data of 1 to 16 bits stored; MONOCHROME1 or 2, PALETTE COLOR, RGB or YBR.
        windowing: "dicom" applies the Modality LUT or rescale, then the first VOI LUT, or else the first window
            (centre +- width / 2; LINEAR, LINEAR_EXACT or SIGMOID), or else the full range of the pixels that are not
            padding; 8-bit pixels without a VOI LUT or window are ready to display and stay as they are.
            "paper" applies the window to stored values as centre +- width, twice as wide, or else
            (value - mean) / (max - min): what the paper's weights were trained with.
        name: what errors and warnings call it.

    Returns:
        A PIL image of mode "L", rows x columns as stored.

    Raises:
        RadiographError: another modality than CR, DX, RG or OT (none is accepted), no pixel data, a header that
            contradicts itself or the pixel data, or pixel data that cannot be decoded.

    Warns:
        UserWarning: several frames; a View Position other than PA or AP; a body part other than the chest; a window
            that cannot be applied (and is left out).

    Source: PS3.3 C.7.6.3, C.11.1, C.11.2.1; LiteGPT (arXiv 2407.12064), appendix A.1, for "paper".
    """
    _check_windowing(windowing)
    _import_pydicom(name)
    header = _read_header(dataset, name)
    _check_header(header, name)
    pixels, photometric = _decode(dataset, header, name)

    if pixels.ndim == 3:
        pixels = (pixels >> max(header.bits_stored - 8, 0)).astype(np.uint8)
        return Image.fromarray(pixels[..., 0] if photometric.startswith("YBR") else pixels).convert("L")
    # High bits that are not stored may hold anything (PS3.5 8.1.1).
    codes = pixels.astype(f"u{pixels.dtype.itemsize}", copy=False) & (2**header.bits_stored - 1)
    if header.palette:
        table = _palette_table(header)
    elif windowing == "paper":
        table = _paper_table(header, codes, name)
    else:
        table = _dicom_table(header, codes, name)
    return Image.fromarray(_apply_table(table, codes))


# --- DICOM: header ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LookupTable:
    """A LUT of PS3.3 C.11.1.1: `data[0]` is for input `first` and below, the last entry for all above."""

    first: int
    bits: int
    data: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        index = np.rint(values).astype(np.int64) - self.first
        return self.data[np.clip(index, 0, len(self.data) - 1)]


@dataclass(frozen=True)
class _Header:
    view: str
    body_part: str
    photometric: str
    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    slope: float
    intercept: float
    modality_lut: _LookupTable | None
    voi_lut: _LookupTable | None
    window: tuple[float, float] | None
    voi_function: str
    palette: list[_LookupTable | None]
    pixel_data: bytes

    def stored_values(self) -> np.ndarray:
        """The (2^bits_stored,) values that the pixel codes 0, 1, ... stand for."""
        values = np.arange(2**self.bits_stored)
        return np.where(self.signed & (values >= len(values) // 2), values - len(values), values)


def _read_header(dataset: Any, name: str) -> _Header:
    def read(keyword: str, convert: Callable[[Any], Any], default: Any = None) -> Any:
        try:
            value = dataset.get(keyword)
            if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
                value = value[0] if value else None
            return default if value is None or value == "" else convert(value)
        except Exception:  # pydicom converts a value when it is read, and raises whatever a bad one runs into
            raise _unusable(name, f"its {keyword} is malformed") from None

    def lookup_table(item: Any) -> _LookupTable:
        return _read_lookup_table(item, "LUT", signed, byte_order)

    def palette_table(colour: str) -> _LookupTable:
        return read(
            f"{colour}PaletteColorLookupTableDescriptor",
            lambda _: _read_lookup_table(dataset, f"{colour}PaletteColorLookupTable", signed, byte_order),
        )

    modality = read("Modality", _code_string, "")
    if modality and modality not in _RADIOGRAPH_MODALITIES:
        wanted = ", ".join(_RADIOGRAPH_MODALITIES)
        raise _unusable(name, f"its modality is {modality}, not a radiograph's ({wanted})")
    byte_order = ">" if dataset.original_encoding[1] is False else "<"
    signed = read("PixelRepresentation", int, 0) == 1
    photometric = read("PhotometricInterpretation", _code_string, "")
    bits_allocated = read("BitsAllocated", int, 0)
    bits_stored = read("BitsStored", int, bits_allocated)
    center, width = read("WindowCenter", _finite), read("WindowWidth", _finite)
    padding = read("PixelPaddingValue", int)
    colours = ("Red", "Green", "Blue") if photometric == "PALETTE COLOR" else ()
    return _Header(
        view=read("ViewPosition", _code_string, ""),
        body_part=read("BodyPartExamined", _code_string, ""),
        photometric=photometric,
        rows=read("Rows", int, 0),
        columns=read("Columns", int, 0),
        samples=read("SamplesPerPixel", int, 1),
        frames=read("NumberOfFrames", int, 1) or 1,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=read("HighBit", int, bits_stored - 1),
        signed=signed,
        padding=None if padding is None else (padding, read("PixelPaddingRangeLimit", int, padding)),
        slope=read("RescaleSlope", _finite, 1.0),
        intercept=read("RescaleIntercept", _finite, 0.0),
        modality_lut=read("ModalityLUTSequence", lookup_table),
        voi_lut=read("VOILUTSequence", lookup_table),
        window=None if center is None or width is None else (center, width),
        voi_function=read("VOILUTFunction", _code_string, "LINEAR"),
        palette=[palette_table(colour) for colour in colours],
        pixel_data=read("PixelData", lambda value: value if isinstance(value, bytes) else b"", b""),
    )


def _code_string(value: Any) -> str:
    """The code, or "?" for what is no code string and must not be repeated in a message."""
    code = str(value).strip().upper()
    return code if re.fullmatch(r"[A-Z0-9_ ]{0,16}", code) else "?"


def _finite(value: Any) -> float:
    if not np.isfinite(float(value)):
        raise ValueError("not finite")
    return float(value)


def _read_lookup_table(dataset: Any, keyword: str, signed: bool, byte_order: str) -> _LookupTable:
    entries, first, bits = (int(value) for value in dataset[f"{keyword}Descriptor"].value)
    entries = entries % 2**16 or 2**16  # 0 says 65536; a negative count was read as signed
    if signed and first >= 2**15:
        first -= 2**16
    data = dataset[f"{keyword}Data"].value
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else f"{byte_order}u2")
    data = np.atleast_1d(np.asarray(data, dtype=np.int64))[:entries]
    if len(data) < entries or not 1 <= bits <= 16:
        raise ValueError("the table does not match its descriptor")
    return _LookupTable(first, bits, data)


def _check_header(header: _Header, name: str) -> None:
    if header.rows < 1 or header.columns < 1 or header.bits_allocated < 1:
        raise _unusable(name, "it holds no image (no Rows, Columns or BitsAllocated)")
    _check_size(header.rows, header.columns, header.samples, name)
    known = header.photometric == "RGB" or header.photometric.startswith("YBR_")
    samples = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1}.get(header.photometric, 3 if known else None)
    for bad, reason in (
        (header.bits_stored > header.bits_allocated, "its BitsStored exceeds its BitsAllocated"),
        (not 1 <= header.bits_stored <= 16, f"it stores {header.bits_stored} bits a pixel, not 1 to 16"),
        (
            header.high_bit >= header.bits_stored,
            f"its HighBit {header.high_bit} is above its {header.bits_stored} bits stored",
        ),
        (header.frames < 1, f"its NumberOfFrames is {header.frames}"),
        (samples is None, f"its PhotometricInterpretation {header.photometric or '(none)'} is not supported"),
        (header.samples != samples, f"its SamplesPerPixel {header.samples} does not fit {header.photometric}"),
        (None in header.palette, "it is PALETTE COLOR without a palette"),
        (header.slope == 0, "its RescaleSlope is 0"),
    ):
        if bad:
            raise _unusable(name, reason)
    if header.frames > 1:
        _warn(name, f"it has {header.frames} frames, the first is used")
    if header.view and header.view not in _FRONTAL_VIEWS:
        _warn(name, f"its ViewPosition is {header.view}, not PA or AP")
    if header.body_part in _NOT_CHEST:
        _warn(name, f"its BodyPartExamined is {header.body_part}, not the chest")


# --- DICOM: pixels ---------------------------------------------------------------------------------------------------


def _decode(dataset: Any, header: _Header, name: str) -> tuple[np.ndarray, str]:
    """The first frame, (rows, columns) or (rows, columns, 3) of stored values, and its Photometric Interpretation."""
    pydicom = _import_pydicom(name)
    uid = pydicom.uid
    data = header.pixel_data
    if not data:
        raise _unusable(name, "it holds no pixel data")
    try:
        syntax = _transfer_syntax(dataset, uid)
    except Exception:  # see _read_header
        raise _unusable(name, "its TransferSyntaxUID is malformed") from None
    if syntax not in uid.AllTransferSyntaxes:
        raise _unusable(name, "its transfer syntax is unknown")
    undecodable = _unusable(name, f"its pixel data cannot be decoded ({syntax.name})")

    frame = b""
    if syntax in uid.UncompressedTransferSyntaxes:
        bits = header.rows * header.columns * header.samples * header.frames * header.bits_allocated
        if header.photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        if len(data) < (bits + 7) // 8:
            raise _unusable(name, f"it is cut short: {len(data)} of {(bits + 7) // 8} bytes of pixel data")
    else:
        try:
            frame = pydicom.encaps.get_frame(data, 0, number_of_frames=header.frames)
        except Exception:  # a damaged stream can raise anything, here and below
            raise undecodable from None
        if syntax not in uid.RLETransferSyntaxes:
            _check_codestream(frame, header, name)

    lossless_jpeg = (uid.JPEGLossless, uid.JPEGLosslessSV1)
    try:
        # pydicom's own plug-ins under a free licence decode neither of these.
        if syntax in lossless_jpeg or (syntax == uid.JPEGExtended12Bit and header.samples == 1):
            imagecodecs = _import_optional("imagecodecs", name)
            pixels, photometric = imagecodecs.jpeg8_decode(frame), header.photometric
        else:
            native = {"view_only": True, "correct_unused_bits": False} if not frame else {}
            pixels, properties = pydicom.pixels.get_decoder(syntax).as_array(dataset, index=0, **native)
            photometric = str(properties["photometric_interpretation"])
    except (KeyboardInterrupt, SystemExit, RadiographError):
        raise
    except BaseException:  # a panic of pylibjpeg-rle is no Exception
        raise undecodable from None
    if pixels.shape[:2] != (header.rows, header.columns):
        raise undecodable
    return pixels, photometric


def _transfer_syntax(dataset: Any, uid: ModuleType) -> str:
    """As declared, or else as pydicom found the header to be encoded (a file without File Meta Information)."""
    declared = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return uid.UID(declared)
    implicit, little_endian = dataset.original_encoding
    if little_endian is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _check_codestream(frame: bytes, header: _Header, name: str) -> None:
    """Refuses a JPEG, JPEG-LS or JPEG 2000 stream that is cut short or of another size than the header's.

    Decoders fill what is cut off with grey, and allocate what the stream says, however little the header says.
    """
    if b"\xff\xd9" not in frame[-32:]:  # end of image, with padding behind it
        raise _unusable(name, "its compressed pixel data are cut short")
    size = _codestream_size(frame)
    if size != (header.rows, header.columns, header.samples):
        raise _unusable(name, "its compressed pixel data are damaged or of another size than its header says")


def _codestream_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns, samples as a JPEG 2000 (ITU-T T.800 A.5.1), JPEG or JPEG-LS (T.81 B.2.2) stream declares them."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(frame) >= start + 42:
        width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
        return height - top, width - left, struct.unpack_from(">H", frame, start + 40)[0]
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HHB", frame, position + 5)
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    return None


def _dicom_table(header: _Header, codes: np.ndarray, name: str) -> np.ndarray:
    """(2^bits_stored,) uint8: what each pixel code is displayed as."""
    stored = header.stored_values()
    values = header.modality_lut(stored) if header.modality_lut else stored * header.slope + header.intercept
    if header.voi_lut:
        fraction = header.voi_lut(values) / (2**header.voi_lut.bits - 1)
    elif window := _usable_window(header, name):
        fraction = _apply_window(values, *window, header.voi_function)
    else:
        used = np.ones(len(stored), bool)
        if header.bits_stored > 8:
            used = _used_values(header, codes, stored)
        low, high = values[used].min(), values[used].max()
        fraction = (values - low) / ((high - low) or 1)
    grey = np.rint(np.clip(fraction, 0, 1) * 255).astype(np.uint8)
    return 255 - grey if header.photometric == "MONOCHROME1" else grey


def _used_values(header: _Header, codes: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """(2^bits_stored,) bool: the codes that occur other than as padding (PS3.3 C.7.5.1.1.2)."""
    used = _histogram(codes, len(stored)) > 0
    if header.padding:
        low, high = sorted(stored[value % len(stored)] for value in header.padding)
        image = used & ((stored < low) | (stored > high))
        return image if image.any() else used
    return used


def _usable_window(header: _Header, name: str) -> tuple[float, float] | None:
    if header.window is None:
        return None
    if header.voi_function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        _warn(name, f"its VOILUTFunction {header.voi_function} is unknown, its window is left out")
        return None
    if header.window[1] < 1 if header.voi_function == "LINEAR" else header.window[1] <= 0:
        _warn(name, f"its WindowWidth is {header.window[1]:g}, its window is left out")
        return None
    return header.window


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Fractions in [0, 1]. Source: PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(float)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _paper_table(header: _Header, codes: np.ndarray, name: str) -> np.ndarray:
    """The paper's window, on stored values. Source: LiteGPT (arXiv 2407.12064), appendix A.1."""
    stored = header.stored_values()
    if header.window and header.window[1] > 0:
        center, width = header.window
    else:
        if header.window:
            _warn(name, f"its WindowWidth is {header.window[1]:g}, its window is left out")
        counts = _histogram(codes, len(stored))
        used = stored[counts > 0]
        center, width = (counts @ stored) / counts.sum(), float(used.max() - used.min()) or 1.0
    flip = -1 if header.photometric == "MONOCHROME1" else 1
    return (np.clip((stored - center) / width, -1, 1) * flip * 127.5 + 127.5).astype(np.uint8)


def _palette_table(header: _Header) -> np.ndarray:
    stored = header.stored_values()
    rgb = [np.clip(lut(stored) / (2**lut.bits - 1) * 255, 0, 255) for lut in header.palette]
    return np.asarray(Image.fromarray(np.rint(np.stack(rgb, axis=-1)[None]).astype(np.uint8)).convert("L"))[0]


def _histogram(codes: np.ndarray, bins: int) -> np.ndarray:
    counts = np.zeros(bins, np.int64)
    for start in range(0, len(codes), _BLOCK):
        counts += np.bincount(codes[start : start + _BLOCK].ravel(), minlength=bins)
    return counts


def _apply_table(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    out = np.empty(codes.shape, np.uint8)
    for start in range(0, len(codes), _BLOCK):
        np.take(table, codes[start : start + _BLOCK], out=out[start : start + _BLOCK], mode="clip")
    return out


# --- Files, pictures, arrays -----------------------------------------------------------------------------------------


def _load_path(path: str, windowing: str) -> Image.Image:
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise _unusable(path, "it is a URL; download it and give the file")
    if not os.path.isfile(path):  # before it is opened: a pipe would wait for ever
        raise _unusable(path, "it is not a file" if os.path.exists(path) else "there is no such file")
    try:
        file = open(path, "rb")
    except OSError as error:
        raise _unusable(path, f"it cannot be opened ({error.strerror})") from None
    with file:
        return _load_file(file, path, windowing)


def _load_file(file: BinaryIO, name: str, windowing: str) -> Image.Image:
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise _unusable(name, f"it is larger than {MAX_BYTES >> 30} GiB")
    file.seek(0)
    head = file.read(132)
    if not head:
        raise _unusable(name, "it is empty")
    file.seek(0)
    if head[128:] != b"DICM":
        try:
            image = Image.open(file, formats=_RASTER_FORMATS)
        except UnidentifiedImageError:
            file.seek(0)
        except Image.DecompressionBombError:
            raise _unusable(name, f"it has more than {MAX_PIXELS:,} pixels") from None
        except Exception:  # see _picture_to_grey
            raise _unusable(name, "its picture is damaged or cut short") from None
        else:
            return _picture_to_grey(image, name)
    return dicom_to_radiograph(_read_dicom(file, name), windowing, name)


def _read_dicom(file: BinaryIO, name: str) -> Any:
    """Also without preamble or File Meta Information, as old files are."""
    pydicom = _import_pydicom(name)
    _check_deflated(file, name)
    try:
        dataset = pydicom.dcmread(file, force=True)
    except Exception:  # see _read_header
        raise _unusable(name, "its DICOM header is damaged") from None
    if not dataset.preamble and not any(keyword in dataset for keyword in ("SOPClassUID", "Modality", "Rows")):
        raise _unusable(name, "it is neither a DICOM file nor a picture (PNG, JPEG, ...)")
    return dataset


def _check_deflated(file: BinaryIO, name: str) -> None:
    """Refuses a deflated data set (PS3.5 A.5) that inflates beyond `MAX_BYTES`; pydicom inflates without a limit."""
    head = file.read(4096)
    if b"1.2.840.10008.1.2.1.99" in head and len(head) > 144:
        file.seek(144 + int.from_bytes(head[140:144], "little"))  # behind the File Meta Information (PS3.10 7.1)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while size <= MAX_BYTES and (data := inflater.unconsumed_tail or file.read(1 << 16)):
                size += len(inflater.decompress(data, 1 << 24))
        except zlib.error:
            raise _unusable(name, "its deflated data set is damaged") from None
        if size > MAX_BYTES:
            raise _unusable(name, f"its deflated data set is larger than {MAX_BYTES >> 30} GiB")
    file.seek(0)


def _picture_to_grey(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.height, image.width, 1, name)
    try:
        frames = getattr(image, "n_frames", 1)  # only Pillow's multi-frame formats have it
        image.load()
        image = ImageOps.exif_transpose(image)
        deep = image.mode == "F" or image.mode.startswith("I")  # convert would clip these at 255
        if image.has_transparency_data and not deep:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        if not deep:
            image = image.convert("L")
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, ...
        raise _unusable(name, "its picture is damaged or cut short") from None
    if frames > 1:
        _warn(name, f"it has {frames} frames, the first is used")
    if deep:
        array = np.asarray(image)
        if image.mode == "I" and array.min() >= 0 and array.max() < 2**16:  # 16-bit PNM
            array = array.astype(np.uint16)
        return _array_to_grey(array, name)
    return image


def _array_to_grey(array: np.ndarray, name: str) -> Image.Image:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))) or array.size == 0:
        raise _unusable(name, f"its shape is {array.shape}, not (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)")
    if array.dtype == np.uint16:
        array = _apply_table(np.rint(np.arange(2**16) / 257).astype(np.uint8), array)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise _unusable(name, "its floats are not all in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise _unusable(name, f"its {array.dtype} values have no known range; give uint8, uint16 or floats in [0, 1]")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _picture_to_grey(Image.fromarray(array), name)


def _check_windowing(windowing: str) -> None:
    if windowing not in ("dicom", "paper"):
        raise ValueError(f"windowing is 'dicom' or 'paper', not {windowing!r}")


def _check_size(rows: int, columns: int, samples: int, name: str) -> None:
    if rows * columns * samples > MAX_PIXELS:
        raise _unusable(name, f"it has {rows} x {columns} pixels, more than {MAX_PIXELS:,} in all")


def _unusable(name: str, reason: str) -> RadiographError:
    return RadiographError(f"Cannot use {name}: {reason}.")


def _warn(name: str, message: str) -> None:
    warnings.warn(f"{name}: {message}", stacklevel=2)


def _import_pydicom(name: str) -> ModuleType:
    """pydicom, silenced for the whole process: its warnings quote tags, and `catch_warnings` is not thread-safe."""
    pydicom = _import_optional("pydicom", name)
    _import_optional("pydicom.encaps", name)
    _import_optional("pydicom.pixels", name)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    module = r"pydicom\."
    if ("ignore", None, Warning, re.compile(module), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=module)
    return pydicom


def _import_optional(module: str, name: str) -> ModuleType:
    # By name: transformers refuses a checkpoint whose code has an import statement for a package that is missing.
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _unusable(name, f"reading it needs the package {module.partition('.')[0]}") from None
