"""DICOM chest radiographs -> 8-bit grey pictures.

The stored values pass the Modality LUT (PS3.3 C.11.1), the VOI LUT or window (C.11.2) and the inversion of MONOCHROME1
(C.7.6.3.1.2), computed once for every value that can be stored, then looked up by pixel. A header is checked before
pixels are allocated. pydicom's messages quote the values of tags, so none is passed on: an error or warning never
tells who the patient is.
"""

import importlib
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

MAX_PIXELS = 89_478_485  # rows x columns x samples, Pillow's own limit; a chest radiograph has 5 to 20 million
MAX_BYTES = 1 << 30  # of a file
MAX_INFLATED_BYTES = 1 << 28  # of a deflated data set: `MAX_PIXELS` of 16 bits are 179 million

# SC files of film scanners say OT; PS3.3 C.7.3.1.1.1 has no code of its own for them.
_RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "OT")
_FRONTAL_VIEWS = ("PA", "AP")
_NOT_CHEST = frozenset(
    "ABDOMEN ANKLE ARM BREAST CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE "
    "LEG LSPINE MANDIBLE NECK PELVIS SHOULDER SKULL TOE WRIST".split()
)
# Transfer Syntax UIDs, PS3.6 table A-1.
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", *_JPEG_LOSSLESS)
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_LOSSY = (_JPEG[0], _JPEG[1], _JPEG_LS[1], _JPEG_2000[1])
_RLE = "1.2.840.10008.1.2.5"
_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MAX_SCRATCH_BYTES = 1 << 26
_ROWS_AT_ONCE = 16  # NumPy turns an index array into 8 bytes a pixel: too much for a whole frame or the cache


class RadiographError(ValueError):
    """The radiograph cannot be used; the message is one sentence that names the file and the reason."""


@dataclass(frozen=True)
class ReadOptions:
    """How a radiograph is read.

    Attributes:
        windowing: "dicom" or "paper", see `dicom_to_radiograph`.
        num_threads: that decode one JPEG 2000 stream.
        enough: pixels of the shorter side that will do, where decoding fewer is faster; None for all.
    """

    windowing: str = "dicom"
    num_threads: int = 1
    enough: int | None = None

    def __post_init__(self):
        if self.windowing not in ("dicom", "paper"):
            raise ValueError(f"windowing is 'dicom' or 'paper', not {self.windowing!r}")


@dataclass(frozen=True)
class GreyPicture:
    """A radiograph in 8-bit grey, in full or reduced.

    Attributes:
        image: mode "L".
        size: (width, height) of the radiograph itself.
        box: xyxy in pixels of `image`: the part that shows the radiograph; None for all of it.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float] | None = None


def dicom_to_radiograph(dataset: Any, windowing: str = "dicom", name: str = "the given dataset") -> Image.Image:
    """One DICOM radiograph in 8-bit grey; the first frame where there are several.

    Args:
        dataset: a `pydicom.Dataset` with Pixel Data of 1 to 16 bits stored; MONOCHROME1 or 2, PALETTE COLOR, RGB or
            YBR.
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
        UserWarning: several frames; a View Position other than PA or AP; a body part other than the chest; text burned
            into the picture; a window that cannot be applied (and is left out).

    Source: PS3.3 C.7.6.3, C.11.1, C.11.2.1; LiteGPT (arXiv 2407.12064), appendix A.1, for "paper".
    """
    return read_dataset(dataset, name, ReadOptions(windowing)).image


def read_dicom(file: BinaryIO, name: str, options: ReadOptions) -> GreyPicture:
    """A DICOM file, also without preamble or File Meta Information, as old files are; see `dicom_to_radiograph`."""
    pydicom = _import_pydicom(name)
    try:
        dataset = pydicom.dcmread(_inflated(file, name), force=True)
    except RadiographError:
        raise
    except Exception:  # see _read_header
        raise unusable(name, "its DICOM header is damaged") from None
    if not dataset.preamble and not any(keyword in dataset for keyword in ("SOPClassUID", "Modality", "Rows")):
        raise unusable(name, "it is neither a DICOM file nor a picture (PNG, JPEG, ...)")
    return read_dataset(dataset, name, options)


def read_dataset(dataset: Any, name: str, options: ReadOptions) -> GreyPicture:
    """`dicom_to_radiograph` with the other options."""
    pydicom = _import_pydicom(name)
    header = _read_header(dataset, name)
    _check_header(header, name)
    syntax, frame = _first_frame(dataset, header, pydicom, name)
    size = (header.columns, header.rows)
    if options.enough and syntax in _JPEG_2000 and header.is_windowed(options.windowing):
        reduced = _decode_reduced(frame, header, options.enough)
        if reduced is not None:
            codes, box = reduced
            return GreyPicture(_display(codes, header, options.windowing, name), size, box)
    pixels, photometric = _decode(dataset, syntax, frame, header, options.num_threads, name)
    if pixels.ndim == 3:
        full = 2**header.bits_stored - 1
        grey_levels = np.rint(np.arange(full + 1) * 255 / full).astype(np.uint8)
        pixels = apply_table(grey_levels, _codes(pixels))
        image = Image.fromarray(pixels[..., 0] if photometric.startswith("YBR") else pixels)
        return GreyPicture(image.convert("L"), size)
    return GreyPicture(_display(pixels, header, options.windowing, name), size)


def _inflated(file: BinaryIO, name: str) -> BinaryIO:
    """The file, a deflated data set (PS3.5 A.5) inflated: pydicom inflates without a limit."""
    head = file.read(4096)
    file.seek(0)
    if b"1.2.840.10008.1.2.1.99" not in head or len(head) <= 144:
        return file
    meta = file.read(144 + int.from_bytes(head[140:144], "little"))  # PS3.10 7.1
    inflated = BytesIO()
    inflated.write(meta.replace(b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0", 1))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while inflated.tell() <= MAX_INFLATED_BYTES and (data := inflater.unconsumed_tail or file.read(1 << 16)):
            inflated.write(inflater.decompress(data, 1 << 22))
    except zlib.error:
        raise unusable(name, "its deflated data set is damaged") from None
    if inflated.tell() > MAX_INFLATED_BYTES:
        raise unusable(name, f"its deflated data set is larger than {MAX_INFLATED_BYTES >> 20} MiB")
    inflated.seek(0)
    return inflated


# --- Header ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LookupTable:
    """A LUT of PS3.3 C.11.1.1: `data[0]` is for input `first` and below, the last entry for all above.

    `first` is read as unsigned: in an implicit VR nothing else says its sign than the values it stands for.
    """

    first: int
    bits: int
    data: np.ndarray

    def __call__(self, values: np.ndarray, signed: bool) -> np.ndarray:
        first = self.first - 2**16 if signed and self.first >= 2**15 else self.first
        return self.data[np.clip(np.rint(values) - first, 0, len(self.data) - 1).astype(np.int64)]


@dataclass(frozen=True)
class _Header:
    view: str
    body_part: str
    burned_in_annotation: str
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

    def clip(self, pixels: np.ndarray) -> np.ndarray:
        """Values that a lossy stream has beyond the stored range, which would wrap around to the other end."""
        low = -(2 ** (self.bits_stored - 1)) if pixels.dtype.kind == "i" else 0
        return pixels.clip(low, low + 2**self.bits_stored - 1)

    def is_windowed(self, windowing: str) -> bool:
        """Whether a window or VOI LUT says how values are displayed, without a look at the pixels."""
        if windowing == "dicom" and self.voi_lut:
            return True
        return self.window is not None and self.window[1] > 1 and self.voi_function in _VOI_FUNCTIONS


def _read_header(dataset: Any, name: str) -> _Header:
    def read(keyword: str, convert: Callable[[Any], Any], default: Any = None) -> Any:
        try:
            value = dataset.get(keyword)
            if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
                value = value[0] if value else None
            return default if value is None or value == "" else convert(value)
        except Exception:  # pydicom converts a value when it is read, and raises whatever a bad one runs into
            raise unusable(name, f"its {keyword} is malformed") from None

    def lookup_table(item: Any) -> _LookupTable:
        return _read_lookup_table(item, "LUT", byte_order)

    def palette_table(colour: str) -> _LookupTable:
        return read(
            f"{colour}PaletteColorLookupTableDescriptor",
            lambda _: _read_lookup_table(dataset, f"{colour}PaletteColorLookupTable", byte_order),
        )

    modality = read("Modality", _code_string, "")
    if modality and modality not in _RADIOGRAPH_MODALITIES:
        wanted = ", ".join(_RADIOGRAPH_MODALITIES)
        raise unusable(name, f"its modality is {modality}, not a radiograph's ({wanted})")
    byte_order = ">" if dataset.original_encoding[1] is False else "<"
    photometric = read("PhotometricInterpretation", _code_string, "")
    bits_allocated = read("BitsAllocated", int, 0)
    bits_stored = read("BitsStored", int, bits_allocated)
    center, width = read("WindowCenter", _finite), read("WindowWidth", _finite)
    padding = read("PixelPaddingValue", int)
    colours = ("Red", "Green", "Blue") if photometric == "PALETTE COLOR" else ()
    return _Header(
        view=read("ViewPosition", _code_string, ""),
        body_part=read("BodyPartExamined", _code_string, ""),
        burned_in_annotation=read("BurnedInAnnotation", _code_string, ""),
        photometric=photometric,
        rows=read("Rows", int, 0),
        columns=read("Columns", int, 0),
        samples=read("SamplesPerPixel", int, 1),
        frames=read("NumberOfFrames", int, 1) or 1,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=read("HighBit", int, bits_stored - 1),
        signed=read("PixelRepresentation", int, 0) == 1,
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


def _read_lookup_table(dataset: Any, keyword: str, byte_order: str) -> _LookupTable:
    entries, first, bits = (int(value) for value in dataset[f"{keyword}Descriptor"].value)
    entries = entries % 2**16 or 2**16  # 0 says 65536; a negative count was read as signed
    data = dataset[f"{keyword}Data"].value
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else f"{byte_order}u2")
    data = np.atleast_1d(np.asarray(data, dtype=np.int64))[:entries]
    if len(data) < entries or not 1 <= bits <= 16:
        raise ValueError("the table does not match its descriptor")
    return _LookupTable(first % 2**16, bits, data)


def _check_header(header: _Header, name: str) -> None:
    if header.rows < 1 or header.columns < 1 or header.bits_allocated < 1:
        raise unusable(name, "it holds no image (no Rows, Columns or BitsAllocated)")
    check_size(header.rows, header.columns, header.samples, name)
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
            raise unusable(name, reason)
    if header.frames > 1:
        warn(name, f"it has {header.frames} frames, the first is used")
    if header.view and header.view not in _FRONTAL_VIEWS:
        warn(name, f"its ViewPosition is {header.view}, not PA or AP")
    if header.body_part in _NOT_CHEST:
        warn(name, f"its BodyPartExamined is {header.body_part}, not the chest")
    if header.burned_in_annotation == "YES":
        warn(name, "text is burned into its picture (BurnedInAnnotation), which may tell who the patient is")


# --- Pixels ----------------------------------------------------------------------------------------------------------


def _first_frame(dataset: Any, header: _Header, pydicom: ModuleType, name: str) -> tuple[Any, memoryview]:
    """The Transfer Syntax UID and the first frame's compressed stream, checked; empty where it is not compressed."""
    uid = pydicom.uid
    data = header.pixel_data
    if not data:
        raise unusable(name, "it holds no pixel data")
    try:
        syntax = _transfer_syntax(dataset, uid)
    except Exception:  # see _read_header
        raise unusable(name, "its TransferSyntaxUID is malformed") from None
    if syntax not in uid.AllTransferSyntaxes:
        raise unusable(name, "its transfer syntax is unknown")
    if syntax in uid.UncompressedTransferSyntaxes:
        bits = header.rows * header.columns * header.samples * header.frames * header.bits_allocated
        if header.photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        if len(data) < (bits + 7) // 8:
            raise unusable(name, f"it is cut short: {len(data)} of {(bits + 7) // 8} bytes of pixel data")
        return syntax, memoryview(b"")
    frame = _only_fragment(data)
    if frame is None:
        try:
            frame = memoryview(pydicom.encaps.get_frame(data, 0, number_of_frames=header.frames))
        except Exception:  # a damaged stream can raise anything
            raise _undecodable(name, syntax) from None
    if syntax not in uid.RLETransferSyntaxes:
        _check_codestream(frame, syntax, header, name)
    return syntax, frame


def _transfer_syntax(dataset: Any, uid: ModuleType) -> str:
    """As declared, or else as pydicom found the header to be encoded (a file without File Meta Information)."""
    declared = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return uid.UID(declared)
    implicit, little_endian = dataset.original_encoding
    if little_endian is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _only_fragment(data: bytes) -> memoryview | None:
    """The stream of a single frame in a single fragment (PS3.5 A.4), as nearly all are, without a copy of it."""
    item, delimiter = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
    start = 8 + int.from_bytes(data[4:8], "little")  # after the Basic Offset Table
    end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    if data[:4] == data[start : start + 4] == item and data[end : end + 4] in (delimiter, b"") and end <= len(data):
        return memoryview(data)[start + 8 : end]
    return None


def _undecodable(name: str, syntax: Any) -> RadiographError:
    return unusable(name, f"its pixel data cannot be decoded ({syntax.name})")


def _check_codestream(frame: memoryview, syntax: str, header: _Header, name: str) -> None:
    """Refuses a JPEG, JPEG-LS or JPEG 2000 stream that is cut short or of another size than the header's.

    Decoders fill what is cut off with grey, and allocate what the stream says, however little the header says.
    """
    if b"\xff\xd9" not in bytes(frame[-32:]):  # end of image, with padding after it
        raise unusable(name, "its compressed pixel data are cut short")
    is_jpeg = syntax in (*_JPEG, *_JPEG_LS)
    size = _jpeg_size(frame)[:3] if is_jpeg else _jpeg_2000_size(frame)
    if size != (header.rows, header.columns, header.samples):
        raise unusable(name, "its compressed pixel data are damaged or of another size than its header says")


def _jpeg_size(frame: memoryview) -> tuple[int, int, int, int]:
    """Rows, columns, samples, bits as a JPEG or JPEG-LS stream declares them (ITU-T T.81 B.2.2); 0 if it does not."""
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return rows, columns, samples, bits
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    return 0, 0, 0, 0


def _jpeg_2000_size(frame: memoryview) -> tuple[int, int, int] | None:
    """Rows, columns, samples as a JPEG 2000 stream declares them (ITU-T T.800 A.5.1)."""
    start = _start_of_jpeg_2000(frame)
    if start is None:
        return None
    width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
    return height - top, width - left, struct.unpack_from(">H", frame, start + 40)[0]


def _start_of_jpeg_2000(frame: memoryview) -> int | None:
    """Where the codestream starts: at once, or in the box `jp2c` of a JP2 file (T.800 I.4), as some writers store."""
    start = 0
    while frame[start : start + 4] != b"\xff\x4f\xff\x51":
        size = int.from_bytes(frame[start : start + 4], "big")
        if size != 0 and size < 8 or start + 8 > len(frame):
            return None
        start += 8 if frame[start + 4 : start + 8] == b"jp2c" else size or len(frame)
    return start if start + 43 <= len(frame) else None


def _decode(
    dataset: Any, syntax: Any, frame: memoryview, header: _Header, num_threads: int, name: str
) -> tuple[np.ndarray, str]:
    """The first frame, (rows, columns) or (rows, columns, 3) of stored values, and its Photometric Interpretation."""
    imagecodecs = None
    by_imagecodecs = syntax in _JPEG_LOSSLESS or (
        header.samples == 1 and syntax in (_RLE, *_JPEG, *_JPEG_LS, *_JPEG_2000)
    )
    try:
        if by_imagecodecs and (imagecodecs := _find("imagecodecs")):
            pixels, photometric = _decode_by(imagecodecs, syntax, frame, header, num_threads), header.photometric
        else:
            native = {"view_only": True, "correct_unused_bits": False} if not frame else {}
            decoder = _import_optional("pydicom.pixels", name).get_decoder(syntax)
            pixels, properties = decoder.as_array(dataset, index=0, **native)
            photometric = str(properties["photometric_interpretation"])
    except (KeyboardInterrupt, SystemExit, RadiographError):
        raise
    except BaseException:  # a panic of pylibjpeg-rle is no Exception
        if by_imagecodecs and not imagecodecs:
            raise unusable(name, f"{syntax.name} cannot be decoded without the package imagecodecs") from None
        raise _undecodable(name, syntax) from None
    if pixels.shape[:2] != (header.rows, header.columns):
        raise _undecodable(name, syntax)
    return pixels, photometric


def _decode_by(
    imagecodecs: ModuleType, syntax: str, frame: memoryview, header: _Header, num_threads: int
) -> np.ndarray:
    """Several times faster than pydicom's plug-ins, of which none under a free licence decodes lossless JPEG."""
    if syntax == _RLE:
        dtype = np.dtype(f"<u{-(-header.bits_allocated // 8)}")
        values = _scratch(header.rows * header.columns * dtype.itemsize)
        # A plane that is too short leaves the rest as it was.
        if len(imagecodecs.dicomrle_decode(frame, dtype, out=values)) != len(values):
            raise ValueError("the stream is too short")
        return values.view(dtype).reshape(header.rows, header.columns)
    if syntax in (*_JPEG, *_JPEG_LS):
        out = None
        if header.samples == 1:
            dtype = np.dtype(np.uint8 if _jpeg_size(frame)[3] <= 8 else np.uint16)
            out = _scratch(header.rows * header.columns * dtype.itemsize).view(dtype)
            out = out.reshape(header.rows, header.columns)
        pixels = (imagecodecs.jpeg8_decode if syntax in _JPEG else imagecodecs.jpegls_decode)(frame, out=out)
    else:
        pixels = imagecodecs.jpeg2k_decode(frame, numthreads=num_threads)
    return header.clip(pixels) if syntax in _LOSSY else pixels


_of_thread = threading.local()


def _scratch(size: int) -> np.ndarray:
    """(size,) uint8 to decode into, which the thread's next radiograph overwrites.

    The system clears new memory page by page, which takes a fifth of the time of a whole radiograph in RLE.
    """
    buffer = getattr(_of_thread, "buffer", np.empty(0, np.uint8))
    if len(buffer) < size:
        buffer = np.empty(size, np.uint8)
        if size <= _MAX_SCRATCH_BYTES:
            _of_thread.buffer = buffer
    return buffer[:size]


def _decode_reduced(
    frame: memoryview, header: _Header, enough: int
) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
    """A JPEG 2000 stream at the lowest resolution whose shorter side has `enough` pixels, and `GreyPicture.box`.

    None where no lower resolution will do or Pillow cannot decode it; the stream is then decoded in full.

    Sample i of the resolution that is `levels` down stands for pixel i * 2^levels (ITU-T T.800 F.3: low-pass samples
    are the even ones), not for the middle of 2^levels pixels, which the box makes up for.
    """
    levels = (min(header.rows, header.columns) // enough).bit_length() - 1
    start = _start_of_jpeg_2000(frame) or 0
    origin, precision = frame[start + 16 : start + 24], frame[start + 42]
    # Signed values, others than the header's and an image area that starts elsewhere are left to the full decoder.
    if levels < 1 or not 8 <= header.bits_stored == precision + 1 or any(origin):
        return None
    step = 2**levels
    width, height = -(-header.columns // step), -(-header.rows // step)
    try:
        image = Image.open(BytesIO(frame), formats=("JPEG2000",))
        image.reduce = levels
        image._size = (width * step, height * step)  # else Pillow rounds the reduced size where JPEG 2000 rounds up
        codes = np.asarray(image)
    except Exception:  # Pillow's decoders raise anything
        return None
    if codes.shape != (height, width):
        return None
    if codes.dtype == np.uint16:
        codes = codes >> (16 - header.bits_stored)  # Pillow spreads the values over 16 bits
    shift = 0.5 - 0.5 / step
    return np.pad(codes, ((0, 1), (0, 1)), "edge"), (
        shift,
        shift,
        header.columns / step + shift,
        header.rows / step + shift,
    )


def _display(pixels: np.ndarray, header: _Header, windowing: str, name: str) -> Image.Image:
    """(rows, columns) of stored values as they are displayed."""
    codes = _codes(pixels)
    if header.palette:
        table = _palette_table(header)
    elif windowing == "paper":
        table = _paper_table(header, codes, name)
    else:
        table = _dicom_table(header, codes, name)
    return Image.fromarray(apply_table(table, codes))


def _codes(pixels: np.ndarray) -> np.ndarray:
    """The pixels as uint8 or uint16, by which a table is looked up."""
    codes = pixels.astype(f"u{pixels.dtype.itemsize}", copy=False)
    return codes if codes.itemsize <= 2 else codes.astype(np.uint16)


def _dicom_table(header: _Header, codes: np.ndarray, name: str) -> np.ndarray:
    """(2^bits_stored,) uint8: what each pixel code is displayed as."""
    stored = header.stored_values()
    if header.modality_lut:
        values = header.modality_lut(stored, header.signed)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored * header.slope + header.intercept
        if not np.isfinite(values).all():
            raise unusable(name, "its RescaleSlope or RescaleIntercept is too large")
    if header.voi_lut:
        # C.11.2.1.1: the first value is signed where the Modality LUT may give negative ones.
        fraction = header.voi_lut(values, bool(values.min() < 0)) / (2**header.voi_lut.bits - 1)
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
    if header.voi_function not in _VOI_FUNCTIONS:
        warn(name, f"its VOILUTFunction {header.voi_function} is unknown, its window is left out")
        return None
    if header.window[1] < 1 if header.voi_function == "LINEAR" else header.window[1] <= 0:
        warn(name, f"its WindowWidth is {header.window[1]:g}, its window is left out")
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
            warn(name, f"its WindowWidth is {header.window[1]:g}, its window is left out")
        counts = _histogram(codes, len(stored))
        used = stored[counts > 0]
        center, width = (counts @ stored) / counts.sum(), float(used.max() - used.min()) or 1.0
    flip = -1 if header.photometric == "MONOCHROME1" else 1
    return (np.clip((stored - center) / width, -1, 1) * flip * 127.5 + 127.5).astype(np.uint8)


def _palette_table(header: _Header) -> np.ndarray:
    stored = header.stored_values()
    rgb = [np.clip(lut(stored, header.signed) / (2**lut.bits - 1) * 255, 0, 255) for lut in header.palette]
    return np.asarray(Image.fromarray(np.rint(np.stack(rgb, axis=-1)[None]).astype(np.uint8)).convert("L"))[0]


def _histogram(codes: np.ndarray, bins: int) -> np.ndarray:
    counts = np.zeros(bins, np.int64)
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        rows = codes[start : start + _ROWS_AT_ONCE]
        counts += np.bincount((rows & (bins - 1)).ravel(), minlength=bins)
    return counts


def apply_table(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`table[codes]` for uint8 or uint16 codes, with less memory.

    Bits above the table's, a power of two, count for nothing: high bits that are not stored may hold anything
    (PS3.5 8.1.1).
    """
    table = np.tile(table, 2 ** (8 * codes.itemsize) // len(table))
    out = np.empty(codes.shape, np.uint8)
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        np.take(table, codes[rows], out=out[rows], mode="clip")
    return out


# --- What radiograph.py shares ---------------------------------------------------------------------------------------


def check_size(rows: int, columns: int, samples: int, name: str) -> None:
    """Refuses a radiograph of more than `MAX_PIXELS`."""
    if rows * columns * samples > MAX_PIXELS:
        raise unusable(name, f"it has {rows} x {columns} pixels, more than {MAX_PIXELS // max(samples, 1):,}")


def unusable(name: str, reason: str) -> RadiographError:
    return RadiographError(f"Cannot use {short(name)}: {reason}.")


def warn(name: str, message: str) -> None:
    warnings.warn(f"{short(name)}: {message}", stacklevel=2)


def short(name: str) -> str:
    """A name for a message: on one line, without its middle where it is long, as a file given as a string is."""
    name = name if len(name) <= 100 else f"{name[:32]}...{name[-65:]}"
    return " ".join(name.splitlines()) or "''"


def _import_pydicom(name: str) -> ModuleType:
    """pydicom, silenced for the whole process: its warnings quote tags, and `catch_warnings` is not thread-safe."""
    pydicom = _import_optional("pydicom", name)
    _import_optional("pydicom.encaps", name)
    _import_optional("pydicom.pixels", name)
    logger = logging.getLogger("pydicom")
    if logger.level != logging.CRITICAL:  # setting it takes a millisecond
        logger.setLevel(logging.CRITICAL)
    module = r"pydicom\."
    if ("ignore", None, Warning, re.compile(module), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=module)
    return pydicom


def _import_optional(module: str, name: str) -> ModuleType:
    found = _find(module)
    if found is None:
        raise unusable(name, f"reading it needs the package {module.partition('.')[0]}")
    return found


def _find(module: str) -> ModuleType | None:
    # By name: transformers refuses a checkpoint whose code has an import statement for a package that is missing.
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
