"""DICOM chest radiographs -> 8-bit grey pictures.

The stored values pass the Modality LUT (PS3.3 C.11.1), the VOI LUT or window (C.11.2) and the inversion of MONOCHROME1
(C.7.6.3.1.2), computed once for every value that can be stored, then looked up by pixel. A header is checked before
pixels are allocated. pydicom's messages quote the values of tags, so none is passed on: an error or warning never
tells who the patient is.

Where header and pixels disagree, the pixels are believed as far as they are plain, and a warning says so.
"""

import importlib
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .dicom_header import VOI_FUNCTIONS, Header, check_header, read_header, turn_to_standard_view
from .doubts import RadiographError, collected_warnings, unusable, warn
from .picture_check import SMALLEST_SIDE, has_contrast, looks_inverted

MAX_BYTES = 1 << 30  # of a file
MAX_INFLATED_BYTES = 1 << 28  # of a deflated data set: `MAX_PIXELS` of 16 bits are 179 million

# Transfer Syntax UIDs, PS3.6 table A-1.
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", *_JPEG_LOSSLESS)
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_LOSSY = (_JPEG[0], _JPEG[1], _JPEG_LS[1], _JPEG_2000[1])
_RLE = "1.2.840.10008.1.2.5"
_ITEM = b"\xfe\xff\x00\xe0"  # tag of an item of encapsulated pixel data, PS3.5 A.4
_MAX_SCRATCH_BYTES = 1 << 26
_ROWS_AT_ONCE = 16  # NumPy turns an index array into 8 bytes a pixel: too much for a whole frame or the cache


@dataclass(frozen=True)
class ReadOptions:
    """How a radiograph is read.

    Attributes:
        windowing: "dicom" or "paper", see `dicom_to_radiograph`.
        num_threads: that decode one JPEG 2000 stream.
        enough: pixels of the shorter side that will do, where decoding fewer is faster; None for all.
        turned: whether the reader's caller turns the picture to the standard view (`GreyPicture.turn`); the warning
            about a picture that is stored otherwise says so.
    """

    windowing: str = "dicom"
    num_threads: int = 1
    enough: int | None = None
    turned: bool = False

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
        turn: brings the radiograph, which is left as it is stored, to the standard view: patient's left at the right,
            head at the top; None where it stands so, or nothing says how it stands.
        name: what errors and warnings call it.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float] | None = None
    turn: Image.Transpose | None = None
    name: str = "the given image"


def dicom_to_radiograph(dataset: Any, windowing: str = "dicom", name: str = "the given dataset") -> Image.Image:
    """One DICOM radiograph in 8-bit grey; the first frame where there are several.

    Args:
        dataset: a `pydicom.Dataset` with Pixel Data of 1 to 16 bits stored; MONOCHROME1 or 2, PALETTE COLOR, RGB or
            YBR.
        windowing: "dicom" applies the Modality LUT or rescale, then the first VOI LUT that is usable, or else the
            first such window (centre +- width / 2; LINEAR, LINEAR_EXACT or SIGMOID), or else the range of the pixels
            (see `_range_of_pixels`); 8-bit pixels without a VOI LUT or window are ready to display and stay as they
            are. A VOI LUT or window is not usable where it leaves a picture blank that has contrast without it.
            "paper" applies the window to stored values as centre +- width, twice as wide, or else
            (value - mean) / (max - min): what the paper's weights were trained with.
        name: what errors and warnings call it.

    Returns:
        A PIL image of mode "L", rows x columns as stored.

    Raises:
        RadiographError: another modality than a radiograph's (none is accepted), no pixel data, a header that
            contradicts itself or the pixel data beyond repair, or pixel data that cannot be decoded.

    Warns:
        UserWarning: whatever is doubtful about the file: several frames; another view or body part than a frontal
            chest; burned-in text; a window, VOI LUT or Presentation LUT Shape that is not used, or not as written;
            raw detector values; an orientation that is not the standard one; pixel data other than the header says.

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
    except Exception:  # see read_header
        raise unusable(name, "its DICOM header is damaged") from None
    if "Rows" not in dataset and _has_rows_before_its_pixels(file, pydicom):
        raise unusable(name, "it is cut short: its compressed pixel data do not end")
    if not dataset.preamble and not any(keyword in dataset for keyword in ("SOPClassUID", "Modality", "Rows")):
        raise unusable(name, "it is neither a DICOM file nor a picture (PNG, JPEG, ...)")
    return read_dataset(dataset, name, options)


def _has_rows_before_its_pixels(file: BinaryIO, pydicom: ModuleType) -> bool:
    """Whether the header is whole: pydicom drops all of a file whose last element has no end."""
    try:
        file.seek(0)
        return "Rows" in pydicom.dcmread(file, force=True, stop_before_pixels=True)
    except Exception:  # see read_header
        return False


def read_dataset(dataset: Any, name: str, options: ReadOptions) -> GreyPicture:
    """`dicom_to_radiograph` with the other options."""
    with collected_warnings():
        return _read_dataset(dataset, name, options)


def _read_dataset(dataset: Any, name: str, options: ReadOptions) -> GreyPicture:
    pydicom = _import_pydicom(name)
    header = read_header(dataset, name)
    check_header(header, name)
    stream = _first_frame(dataset, header, pydicom, name)
    header = stream.header
    turn = turn_to_standard_view(header, options.turned, name)

    def picture(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> GreyPicture:
        return GreyPicture(image, (header.columns, header.rows), box, turn, name)

    if options.enough and turn is None and header.is_simple(options.windowing) and stream.syntax in _JPEG_2000:
        reduced = _decode_reduced(stream.frame, header, options.enough)
        if reduced is not None and (image := _windowed(_codes(reduced[0]), header, options.windowing, name)):
            return picture(image, reduced[1])
    pixels, photometric = _decode(dataset, stream, options.num_threads, name)
    if pixels.ndim == 3:
        return picture(_colour_to_grey(pixels, photometric, header, name))
    header = _believed(pixels, stream, name)
    return picture(_shuttered(_display(pixels, header, options.windowing, name), header, name))


def _colour_to_grey(pixels: np.ndarray, photometric: str, header: Header, name: str) -> Image.Image:
    full = 2**header.bits_stored - 1
    grey_levels = np.rint(np.arange(full + 1) * 255 / full).astype(np.uint8)
    pixels = apply_table(grey_levels, _codes(pixels))
    if photometric == "RGB" and _is_luminance_and_no_colour(pixels):
        warn(name, "its colours are YCbCr, though its PhotometricInterpretation is RGB")
        photometric = "YBR_FULL"
    image = Image.fromarray(pixels[..., 0] if photometric.startswith("YBR") else pixels)
    return image.convert("L")


def _is_luminance_and_no_colour(pixels: np.ndarray) -> bool:
    """Whether the second and third sample are Cb and Cr of grey, 128, whatever the first is."""
    sample = pixels[:: max(1, len(pixels) // 128), :: max(1, pixels.shape[1] // 128)].reshape(-1, 3).astype(int)
    return bool(abs(sample[:, 1:] - 128).max() <= 8 and sample[:, 0].std() > 16)


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


# --- Pixels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stream:
    """What the first frame is decoded from.

    Attributes:
        syntax: the Transfer Syntax UID, as it is.
        frame: the compressed stream, checked; empty where it is not compressed.
        header: as the pixel data have it, where it contradicts them.
        pixels: (rows, columns) where the header was wrong about pixels that are not compressed; else not yet decoded.
    """

    syntax: Any
    frame: memoryview
    header: Header
    pixels: np.ndarray | None = None


def _first_frame(dataset: Any, header: Header, pydicom: ModuleType, name: str) -> _Stream:
    uid = pydicom.uid
    data = header.pixel_data
    if not data:
        raise unusable(name, "it holds no pixel data")
    try:
        syntax = _transfer_syntax(dataset, uid)
    except Exception:  # see read_header
        raise unusable(name, "its TransferSyntaxUID is malformed") from None
    if syntax not in uid.AllTransferSyntaxes:
        raise unusable(name, "its transfer syntax is unknown")
    is_encapsulated = data[:4] == _ITEM and len(data) != _bytes_needed(header)
    if syntax in uid.UncompressedTransferSyntaxes:
        if not is_encapsulated:
            return _uncompressed(syntax, header, name)
        syntax = uid.UID(_stream_syntax(data) or "")
        if not syntax:
            raise unusable(name, "its pixel data are compressed, in a way that its header does not say")
        warn(name, f"its pixel data are {syntax.name}, though its header says that they are not compressed")
    elif data[:4] != _ITEM and header.samples == 1 and len(data) == _bytes_needed(header):
        warn(name, f"its pixel data are not compressed, though its header says {syntax.name}")
        native = _uncompressed(uid.ExplicitVRLittleEndian, header, name)
        return native if native.pixels is not None else replace(native, pixels=_as_array(native.header, "<"))
    frame = _only_fragment(data)
    if frame is None:
        try:
            frame = memoryview(pydicom.encaps.get_frame(data, 0, number_of_frames=header.frames))
        except Exception:  # a damaged stream can raise anything
            raise _undecodable(name, syntax) from None
    if syntax not in uid.RLETransferSyntaxes:
        header = _check_codestream(frame, syntax, header, name)
    return _Stream(syntax, frame, header)


def _bytes_needed(header: Header) -> int:
    """Of pixel data that are not compressed."""
    bits = header.rows * header.columns * header.samples * header.frames * header.bits_allocated
    return ((bits * 2 // 3 if header.photometric == "YBR_FULL_422" else bits) + 7) // 8


def _stream_syntax(data: bytes) -> str:
    """The Transfer Syntax UID of encapsulated pixel data by what they begin with, "" for none that is known."""
    frame = _only_fragment(data) or memoryview(b"")
    if frame[:4] in (b"\xff\x4f\xff\x51", b"\0\0\0\x0c"):
        return _JPEG_2000[0]
    if frame[:2] != b"\xff\xd8":
        return ""
    return {0xC0: _JPEG[0], 0xC1: _JPEG[1], 0xC3: _JPEG_LOSSLESS[0], 0xF7: _JPEG_LS[1]}.get(_jpeg_frame(frame)[0], "")


def _uncompressed(syntax: Any, header: Header, name: str) -> _Stream:
    """Pixel data that are not compressed: as long, wide and deep as the header says, or what they are instead."""
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    data, needed = header.pixel_data, _bytes_needed(header)
    fixed, plain = header, header.samples == 1 and header.frames == 1 and min(header.rows, header.columns) >= 64
    if plain and header.bits_allocated == 8 and len(data) // 2 == needed and _has_two_bytes_a_value(data, order):
        fixed = replace(header, bits_allocated=16, bits_stored=16)
        values = _as_array(fixed, order)
        fixed = replace(fixed, bits_stored=max(int(values.max()).bit_length(), 8))
        warn(name, "its header says 8 bits a pixel, its pixel data have 16; they are read as these")
    elif plain and header.bits_allocated == 16 and len(data) in (needed // 2, needed // 2 + 1) and not header.signed:
        if not _has_two_bytes_a_value(data, order):
            fixed = replace(header, bits_allocated=8, bits_stored=8)
            warn(name, "its header says 16 bits a pixel, its pixel data have 8; they are read as these")
    needed = _bytes_needed(fixed)
    if len(data) < needed:
        raise unusable(name, f"it is cut short: {len(data)} of {needed} bytes of pixel data")
    if len(data) > needed + 1:
        frames, rest = divmod(len(data), needed // header.frames)
        if rest <= 1 and frames > header.frames:
            warn(name, f"it has pixel data of {frames} frames, its header says {header.frames}; the first is used")
        else:
            warn(name, f"it has {len(data) - needed} bytes of pixel data more than its header says, at the end")
    if plain and fixed.bits_allocated in (8, 16) and _is_sheared(fixed, order):
        fixed = replace(fixed, rows=header.columns, columns=header.rows)
        warn(name, f"its Rows and Columns are swapped, it is read as {fixed.rows} rows of {fixed.columns}")
    if fixed is header:
        return _Stream(syntax, memoryview(b""), header)
    return _Stream(syntax, memoryview(b""), fixed, _as_array(fixed, order))


def _as_array(header: Header, order: str) -> np.ndarray:
    """The first frame of pixel data that are not compressed, (rows, columns), one sample a pixel."""
    size = header.rows * header.columns
    dtype = np.dtype(f"{order}{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    values = np.frombuffer(header.pixel_data, dtype, size).reshape(header.rows, header.columns)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _has_two_bytes_a_value(data: bytes, order: str) -> bool:
    """Whether bytes are words: every second one, the high one, is near the next of these, not near its neighbour."""
    values = np.frombuffer(data, np.uint8).astype(np.int16)[(0 if order == ">" else 1) :]
    values = values[: len(values) // 2 * 2][: 1 << 22]
    high, low = values[::2], values[1::2]
    return bool(np.abs(np.diff(high)).mean() * 2 < np.abs(high - low).mean())


def _is_sheared(header: Header, order: str) -> bool:
    """Whether Rows and Columns are swapped: the pixel below resembles a pixel far less than if they were."""
    if header.rows == header.columns:
        return False
    dtype = np.dtype(f"{order}u{header.bits_allocated // 8}")
    values = np.frombuffer(header.pixel_data, dtype, header.rows * header.columns)
    places = np.linspace(0, len(values) - max(header.rows, header.columns) - 1, 4096).astype(np.int64)
    mask = 2**header.bits_stored - 1
    here, below, aside = ((values[places + far] & mask).astype(int) for far in (0, header.columns, header.rows))
    return bool(np.abs(below - here).mean() > 3 * np.abs(aside - here).mean())


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
    delimiter = b"\xfe\xff\xdd\xe0"
    start = 8 + int.from_bytes(data[4:8], "little")  # after the Basic Offset Table
    end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    if data[:4] == data[start : start + 4] == _ITEM and data[end : end + 4] in (delimiter, b"") and end <= len(data):
        return memoryview(data)[start + 8 : end]
    return None


def _undecodable(name: str, syntax: Any) -> RadiographError:
    return unusable(name, f"its pixel data cannot be decoded ({syntax.name})")


def _check_codestream(frame: memoryview, syntax: str, header: Header, name: str) -> Header:
    """Refuses a JPEG, JPEG-LS or JPEG 2000 stream that is cut short or of another size than the header's.

    Decoders fill what is cut off with grey, and allocate what the stream says, however little the header says.

    Returns:
        The header, with Rows and Columns exchanged where the stream has them so.
    """
    if b"\xff\xd9" not in bytes(frame[-32:]):  # end of image, with padding after it
        raise unusable(name, "its compressed pixel data are cut short")
    is_jpeg = syntax in (*_JPEG, *_JPEG_LS)
    size = _jpeg_frame(frame)[1:4] if is_jpeg else _jpeg_2000_size(frame)
    if size == (header.columns, header.rows, header.samples) != (header.rows, header.columns, header.samples):
        warn(name, f"its Rows and Columns are swapped, it is read as {size[0]} rows of {size[1]}")
        return replace(header, rows=header.columns, columns=header.rows)
    if size != (header.rows, header.columns, header.samples):
        raise unusable(name, "its compressed pixel data are damaged or of another size than its header says")
    return header


def _jpeg_frame(frame: memoryview) -> tuple[int, int, int, int, int]:
    """Marker, rows, columns, samples, bits as a JPEG or JPEG-LS stream declares them (ITU-T T.81 B.2.2), or zeros."""
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return marker, rows, columns, samples, bits
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    return 0, 0, 0, 0, 0


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


def _decode(dataset: Any, stream: _Stream, num_threads: int, name: str) -> tuple[np.ndarray, str]:
    """The first frame, (rows, columns) or (rows, columns, 3) of stored values, and its Photometric Interpretation."""
    syntax, frame, header = stream.syntax, stream.frame, stream.header
    if stream.pixels is not None:
        return stream.pixels, header.photometric
    imagecodecs = None
    by_imagecodecs = syntax in _JPEG_LOSSLESS or (
        header.samples == 1 and syntax in (_RLE, *_JPEG, *_JPEG_LS, *_JPEG_2000)
    )
    try:
        if by_imagecodecs and (imagecodecs := find_optional("imagecodecs")):
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
    imagecodecs: ModuleType, syntax: str, frame: memoryview, header: Header, num_threads: int
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
            dtype = np.dtype(np.uint8 if _jpeg_frame(frame)[4] <= 8 else np.uint16)
            out = _scratch(header.rows * header.columns * dtype.itemsize).view(dtype)
            out = out.reshape(header.rows, header.columns)
        pixels = (imagecodecs.jpeg8_decode if syntax in _JPEG else imagecodecs.jpegls_decode)(frame, out=out)
    else:
        pixels = imagecodecs.jpeg2k_decode(frame, numthreads=num_threads)
    return header.clip(pixels) if syntax in _LOSSY else pixels


_thread = threading.local()


def _scratch(size: int) -> np.ndarray:
    """(size,) uint8 to decode into, which the thread's next radiograph overwrites.

    The system clears new memory page by page, which takes a fifth of the time of a whole radiograph in RLE.
    """
    buffer = getattr(_thread, "buffer", np.empty(0, np.uint8))
    if len(buffer) < size:
        buffer = np.empty(size, np.uint8)
        if size <= _MAX_SCRATCH_BYTES:
            _thread.buffer = buffer
    return buffer[:size]


def _decode_reduced(
    frame: memoryview, header: Header, enough: int
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


def _believed(pixels: np.ndarray, stream: _Stream, name: str) -> Header:
    """The header, with the bits and sign that decoded pixels have, where it is plainly wrong about them."""
    header, bits = stream.header, stream.header.bits_stored
    if stream.syntax in _JPEG_2000 and _jpeg_2000_bits(stream.frame) > bits:
        top = int(pixels.max())
        if top >= 2**bits * 1.25 and top < 2**16:  # loss alone does not carry values so far
            bits = top.bit_length() + int(header.signed)
            warn(
                name, f"its BitsStored are {header.bits_stored}, its JPEG 2000 stream has {bits} bits; these are read"
            )
            header = replace(header, bits_stored=min(bits, 16))
    codes = _codes(pixels)
    if needed := _bits_beyond(codes, header):
        warn(name, f"its BitsStored are {header.bits_stored}, its values need {needed}; these are read")
        header = replace(header, bits_stored=needed)
    if header.signed and _wraps_around(codes, header.bits_stored):
        warn(name, "its PixelRepresentation says that its values are signed, which they are not; they are not read so")
        header = replace(header, signed=False)
    return header


def _jpeg_2000_bits(frame: memoryview) -> int:
    start = _start_of_jpeg_2000(frame) or 0
    return (frame[start + 42] & 0x7F) + 1


def _bits_beyond(codes: np.ndarray, header: Header) -> int:
    """The bits that values need, where those above Bits Stored are no junk (neighbours jump without them); else 0."""
    bits = header.bits_stored
    if header.signed or 8 * codes.itemsize <= bits or min(codes.shape) < SMALLEST_SIDE:
        return 0
    rows = codes[:: max(1, len(codes) // 64)]
    if rows.max() < 2**bits:
        return 0
    jumps, jumps_within = (
        (np.abs(np.diff(values.astype(np.int64))) > 2 ** (bits - 1)).sum() for values in (rows, rows & (2**bits - 1))
    )
    return int(codes.max()).bit_length() if jumps_within > 2 * jumps + 4 else 0


def _wraps_around(codes: np.ndarray, bits: int) -> bool:
    """Whether values jump between neighbours when they are read as signed, and do not otherwise."""
    if min(codes.shape) < SMALLEST_SIDE:
        return False
    rows = codes[:: max(1, len(codes) // 64)].astype(np.int64) & (2**bits - 1)
    signed = np.where(rows >= 2 ** (bits - 1), rows - 2**bits, rows)
    jumps, jumps_if_signed = ((np.abs(np.diff(values)) > 2 ** (bits - 1)).sum() for values in (rows, signed))
    return bool(jumps_if_signed > 4 * jumps + 4)


def _display(pixels: np.ndarray, header: Header, windowing: str, name: str) -> Image.Image:
    """(rows, columns) of stored values as they are displayed."""
    codes = _codes(pixels)
    if header.palette:
        return Image.fromarray(apply_table(_palette_table(header), codes))
    image = _windowed(codes, header, windowing, name)
    if image is None and windowing == "paper":
        image = Image.fromarray(apply_table(_paper_table(header, codes, name), codes))
    return image or Image.fromarray(_shown_by_range(codes, header, name))


def _windowed(codes: np.ndarray, header: Header, windowing: str, name: str) -> Image.Image | None:
    """Through the first VOI LUT or window that shows something; None where there is none."""
    if windowing == "paper":
        return Image.fromarray(apply_table(_paper_table(header, codes, name), codes)) if header.windows else None
    values, left_out = _modality_values(header, name), ""
    for what, fractions in _through_each_voi(values, header, name):
        greys = apply_table(_grey_table(fractions, header), codes)
        if has_contrast(greys):
            if left_out:
                warn(
                    name,
                    f"its {left_out} does not belong to its pixels, which it leaves nearly blank; its {what} is used",
                )
            return Image.fromarray(_finished(greys, codes, header, name))
        left_out = left_out or what
    return None


def _through_each_voi(values: np.ndarray, header: Header, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """What the usable VOI LUTs and windows are, and the fractions in [0, 1] that they make of `values`."""
    for voi in header.voi_luts:
        # C.11.2.1.1: the first value is signed where the Modality LUT may give negative ones.
        yield "VOI LUT", voi(values, bool(values.min() < 0)) / (2**voi.bits - 1)
    for window in header.windows:
        if _is_usable(window, header.voi_function, name):
            yield "window", _apply_window(values, *window, header.voi_function)


def _finished(greys: np.ndarray, codes: np.ndarray, header: Header, name: str) -> np.ndarray:
    """The greys, and a warning where padding that should be black is white."""
    greys = _right_way(greys, header, name)
    if header.padding and header.inverted and min(greys.shape) >= SMALLEST_SIDE:
        step = min(greys.shape) // SMALLEST_SIDE
        sample = codes[::step, ::step].astype(np.int64) & (2**header.bits_stored - 1)
        first, last = sorted(value % 2**header.bits_stored for value in header.padding)
        padded = (sample >= first) & (sample <= last)
        if padded.mean() > 0.02 and greys[::step, ::step][padded].min() > 252:
            warn(name, f"{padded.mean():.0%} of it is padding, which its header makes white".replace("%", " %"))
    return greys


def _right_way(greys: np.ndarray, header: Header, name: str) -> np.ndarray:
    """The other way round where a contradictory header leaves it open and the picture looks like a negative."""
    if not header.contradicts_its_shape:
        return greys
    if looks_inverted(greys):
        greys = 255 - greys
    warn(
        name,
        f"its PresentationLUTShape {header.presentation_shape} contradicts {header.photometric}; "
        "it is shown so that air is dark",
    )
    return greys


def _shown_by_range(codes: np.ndarray, header: Header, name: str) -> np.ndarray:
    """Without a window, or with none that shows anything, the range of the pixels."""
    values = _modality_values(header, name)
    given = list(_through_each_voi(values, header, name))
    if header.for_processing and header.intensity == "LIN":
        values = np.log(np.maximum(values, 1))
    low, high, is_narrowed = _range_of_pixels(values, codes, header)
    greys = apply_table(_grey_table(np.clip((values - low) / ((high - low) or 1), 0, 1), header), codes)
    if given and not has_contrast(greys):  # there is nothing to see, whatever the window
        return apply_table(_grey_table(given[0][1], header), codes)
    if given:
        warn(name, f"its {given[0][0]} does not belong to its pixels, which it leaves nearly blank; it is left out")
    elif is_narrowed:
        warn(name, "it has no window, and a border or marker far from the other values; it is shown without these")
    return _finished(greys, codes, header, name)


def _codes(pixels: np.ndarray) -> np.ndarray:
    """The pixels as uint8 or uint16, by which a table is looked up."""
    codes = pixels.astype(f"u{pixels.dtype.itemsize}", copy=False)
    return codes if codes.itemsize <= 2 else codes.astype(np.uint16)


def _modality_values(header: Header, name: str) -> np.ndarray:
    """(2^bits_stored,): what the stored values stand for after the Modality LUT or rescale."""
    stored = header.stored_values()
    if header.modality_lut:
        return header.modality_lut(stored, header.signed)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored * header.slope + header.intercept
    if not np.isfinite(values).all():
        raise unusable(name, "its RescaleSlope or RescaleIntercept is too large")
    return values


def _grey_table(fractions: np.ndarray, header: Header) -> np.ndarray:
    """(2^bits_stored,) uint8: what each pixel code is displayed as."""
    grey = np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return 255 - grey if header.inverted else grey


def _range_of_pixels(values: np.ndarray, codes: np.ndarray, header: Header) -> tuple[float, float, bool]:
    """The lowest and highest of `values` to show, and whether outliers are left out.

    Of 8 bits all that can be stored; of more, the lowest and highest that occurs, other than as padding (PS3.3
    C.7.5.1.1.2) or outside of a rectangular shutter or collimator. Only where that would leave the anatomy in less
    than half of the grey levels, because of a border or marker, is it narrowed: each value counts as often as it
    occurs, but no more than the median of these counts, so that no border outweighs the rest; from the 3rd to the
    97th percentile is the anatomy; and what lies within half of that range on either side belongs to it.

    On 5,453 real radiographs, markers, frames and all, the narrowed range is 0.52 to 1 of the full one: it is never
    taken there.
    """
    if header.bits_stored <= 8 and not header.for_processing:
        return values.min(), values.max(), False
    counts = _histogram(_inside(codes, header), len(values))
    used = counts > 0
    if header.padding:
        stored = header.stored_values()
        first, last = sorted(stored[value % len(stored)] for value in header.padding)
        image = used & ((stored < first) | (stored > last))
        used = image if image.any() else used
    values, counts = values[used], counts[used]
    order = np.argsort(values, kind="stable")
    values, counts = values[order], np.minimum(counts[order], np.median(counts))
    shares = np.cumsum(counts) / counts.sum()
    low, high = values[np.searchsorted(shares, (0.03, 0.97)).clip(max=len(values) - 1)]
    reach = (high - low) / 2
    kept = values[(values >= low - reach) & (values <= high + reach)]
    if (kept[-1] - kept[0]) * 2 < values[-1] - values[0] and len(kept) > 1:
        return kept[0], kept[-1], True
    return values[0], values[-1], False


def _inside(codes: np.ndarray, header: Header) -> np.ndarray:
    """The pixels within a rectangular shutter and collimator; all where that would leave next to none."""
    inside = codes
    for region in (header.shutter, header.collimator):
        if region and region.rectangle:
            top, bottom, left, right = (max(edge, 0) for edge in region.rectangle)
            part = codes[max(top - 1, 0) : bottom, max(left - 1, 0) : right]
            inside = part if 10 * part.size > codes.size and part.size < inside.size else inside
    return inside


def _shuttered(image: Image.Image, header: Header, name: str) -> Image.Image:
    """The picture, with what is outside of its display shutter as the shutter's value."""
    if header.shutter is None:
        return image
    mask = header.shutter.mask(image.size)
    if mask.resize((64, 64), Image.Resampling.BOX).histogram()[255] < 64 * 64 / 10:
        warn(name, "its display shutter hides nearly all of it, and is left out")
        return image
    image.paste(header.shutter.grey, mask=mask.point(lambda shown: 255 - shown))
    return image


def _is_usable(window: tuple[float, float], function: str, name: str) -> bool:
    if function not in VOI_FUNCTIONS:
        warn(name, f"its VOILUTFunction {function} is unknown, its window is left out")
        return False
    if window[1] < 1 if function == "LINEAR" else window[1] <= 0:
        warn(name, f"its WindowWidth is {window[1]:g}, its window is left out")
        return False
    return True


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Fractions in [0, 1]. Source: PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(float)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _paper_table(header: Header, codes: np.ndarray, name: str) -> np.ndarray:
    """The paper's window, on stored values. Source: LiteGPT (arXiv 2407.12064), appendix A.1."""
    stored = header.stored_values()
    window = header.windows[0] if header.windows else None
    if window and window[1] > 0:
        center, width = window
    else:
        if window:
            warn(name, f"its WindowWidth is {window[1]:g}, its window is left out")
        counts = _histogram(codes, len(stored))
        used = stored[counts > 0]
        center, width = (counts @ stored) / counts.sum(), float(used.max() - used.min()) or 1.0
    flip = -1 if header.inverted else 1
    return (np.clip((stored - center) / width, -1, 1) * flip * 127.5 + 127.5).astype(np.uint8)


def _palette_table(header: Header) -> np.ndarray:
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


# --- Packages ---------------------------------------------------------------------------------------


def _import_pydicom(name: str) -> ModuleType:
    pydicom = _import_optional("pydicom", name)
    _import_optional("pydicom.encaps", name)
    _import_optional("pydicom.pixels", name)
    silence_pydicom()
    return pydicom


def silence_pydicom() -> None:
    """For the whole process: its warnings quote tags, and `catch_warnings` is not thread-safe."""
    logger = logging.getLogger("pydicom")
    if logger.level != logging.CRITICAL:  # setting it takes a millisecond
        logger.setLevel(logging.CRITICAL)
    module = r"pydicom\."
    if ("ignore", None, Warning, re.compile(module), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=module)


def _import_optional(module: str, name: str) -> ModuleType:
    found = find_optional(module)
    if found is None:
        raise unusable(name, f"reading it needs the package {module.partition('.')[0]}")
    return found


def find_optional(module: str) -> ModuleType | None:
    """A package, or None where it is not installed."""
    # By name: transformers refuses a checkpoint whose code has an import statement for a package that is missing.
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
