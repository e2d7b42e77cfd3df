"""Damaged and hostile files: whatever the bytes, a picture or a `RadiographError`, soon and with little memory.

A case is a seed: it picks a file and damages it, always in the same way. Cases run in child processes, so that a crash
or a hang costs one case and is told with its seed; `python tests/processing/test_dicom_fuzz.py SEED [real_cxr folder]`
writes the damaged file of a seed to the standard output.
"""

import faulthandler
import json
import os
import resource
import struct
import subprocess
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph, squash_radiograph

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory of one case is read from /proc/self")

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 20  # of processor time for a case; the slowest takes 5
MAX_WAIT = 90  # seconds until a child with a case that hangs is ended
MAX_MEMORY_MB = 1024
Generator = np.random.Generator
EOI = b"\xff\xd9"


# --- Files to damage -------------------------------------------------------------------------------------------------


def make_file(pixels: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, stream: bytes = b"", **tags) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Modality, dataset.ViewPosition = "DX", "PA"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = 8 if pixels.dtype == np.uint8 else 12
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.NumberOfFrames = 1
    dataset.WindowCenter, dataset.WindowWidth = "1800", "3000"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    if stream:
        dataset.add_new("PixelData", "OB", encapsulate([stream + bytes(len(stream) % 2)]))
        dataset["PixelData"].is_undefined_length = True
    else:
        big_endian = syntax == uid.ExplicitVRBigEndian
        data = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
        dataset.add_new("PixelData", "OW", data + bytes(len(data) % 2))
        if syntax == uid.RLELossless:
            dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            dataset.compress(syntax)
    return write(dataset)


def write(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def picture(pixels: np.ndarray, format: str, **options) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def lut(count: int) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 10, 16])
    item.add_new("LUTData", "OW", np.arange(count, dtype="<u2").tobytes())
    return [item]


@cache
def synthetic_files() -> dict[str, bytes]:
    """Small files of every transfer syntax and picture format, 64 x 56."""
    y, x = np.mgrid[:64, :56] / 20
    noise = np.random.default_rng(0).standard_normal((64, 56)) * 0.01
    deep = ((np.sin(3 * x) * np.cos(2 * y) + noise + 1.1) * 1800).astype(np.uint16)
    grey = (deep >> 4).astype(np.uint8)
    colour = np.stack([grey, grey[::-1], 255 - grey], axis=-1)
    palette = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")}
    palette |= {f"{c}PaletteColorLookupTableData": bytes(range(256)) * 2 for c in ("Red", "Green", "Blue")}
    j2k = {"codecformat": "j2k", "reversible": True}
    files = {
        "implicit": make_file(deep, uid.ImplicitVRLittleEndian),
        "explicit": make_file(deep, NumberOfFrames=1, PixelPaddingValue=0),
        "big endian": make_file(deep, uid.ExplicitVRBigEndian),
        "deflated": make_file(deep, uid.DeflatedExplicitVRLittleEndian),
        "no preamble": make_file(deep)[132:],
        "lookup tables": make_file(deep, ModalityLUTSequence=lut(4096), VOILUTSequence=lut(3000)),
        "palette": make_file(grey, PhotometricInterpretation="PALETTE COLOR", **palette),
        "rgb": make_file(colour),
        "rle": make_file(deep, uid.RLELossless),
        "rle rgb": make_file(colour, uid.RLELossless),
        "jpeg": make_file(grey, uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(grey)),
        "jpeg rgb": make_file(
            colour, uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(colour), PhotometricInterpretation="YBR_FULL_422"
        ),
        "jpeg 12 bit": make_file(deep, uid.JPEGExtended12Bit, imagecodecs.jpeg8_encode(deep, 95, bitspersample=12)),
        "jpeg lossless": make_file(
            deep, uid.JPEGLosslessSV1, imagecodecs.jpeg8_encode(deep, lossless=True, bitspersample=12)
        ),
        "jpeg lossless 57": make_file(
            deep, uid.JPEGLossless, imagecodecs.jpeg8_encode(deep, lossless=True, predictor=5, bitspersample=16)
        ),
        "jpeg-ls": make_file(deep, uid.JPEGLSLossless, imagecodecs.jpegls_encode(deep)),
        "jpeg-ls near": make_file(deep, uid.JPEGLSNearLossless, imagecodecs.jpegls_encode(deep, level=2)),
        "jpeg 2000": make_file(deep, uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(deep, bitspersample=12, **j2k)),
        "jpeg 2000 lossy": make_file(
            deep, uid.JPEG2000, imagecodecs.jpeg2k_encode(deep, 40, bitspersample=12, codecformat="jp2")
        ),
        "jpeg 2000 tiles": make_file(grey, uid.JPEG2000, picture(grey, "JPEG2000", no_jp2=True, tile_size=(32, 32))),
        "jpeg 2000 rgb": make_file(
            colour,
            uid.JPEG2000Lossless,
            imagecodecs.jpeg2k_encode(colour, **j2k),
            PhotometricInterpretation="YBR_RCT",
        ),
    }
    if hasattr(imagecodecs, "htj2k_encode"):  # the last release for Python 3.10 has no such encoder
        files["htj2k"] = make_file(deep, uid.HTJ2KLossless, imagecodecs.htj2k_encode(deep, reversible=True))
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM"):
        files[f"picture {format}"] = picture(grey if format in ("PNG", "GIF") else colour, format)
    files["picture TIFF deflate"] = picture(deep, "TIFF", compression="tiff_deflate")
    return files


@cache
def real_files(folder: str) -> dict[str, bytes]:
    names = ("dicom_cxr", "dicom_derived", "dicom_odd", "raster_odd")
    paths = [path for name in names for path in Path(folder, name).iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(paths)}


# --- Damage: any bytes -----------------------------------------------------------------------------------------------


def somewhere(rng: Generator, data: bytes) -> int:
    """A position; every second one is in the first 1,500 bytes, where headers are."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 1500)
    return int(rng.integers(end)) if end else 0


def flip_bytes(rng: Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 2, 5, 40]))):
        changed[somewhere(rng, data)] = rng.integers(256)
    return bytes(changed)


def flip_bit(rng: Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[somewhere(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(rng: Generator, data: bytes) -> bytes:
    return data[: somewhere(rng, data)]


def change_block(rng: Generator, data: bytes) -> bytes:
    """Inserts, duplicates, removes, zeroes, fills or moves a block."""
    at, size = somewhere(rng, data), int(rng.choice([1, 2, 8, 100, 3000]))
    block, rest = data[at : at + size], data[at + size :]
    kind = rng.integers(6)
    new = [rng.bytes(size) + block, block * 2, b"", bytes(len(block)), b"\xff" * len(block), data[:size]][kind]
    return data[:at] + new + rest


def set_integer(rng: Generator, data: bytes) -> bytes:
    """An extreme 16- or 32-bit integer of either byte order, anywhere."""
    return overwrite(data, somewhere(rng, data), extreme(rng, int(rng.choice([2, 4])), rng.choice(["little", "big"])))


def extreme(rng: Generator, size: int, byte_order: str) -> bytes:
    top = 256**size
    values = (0, 1, 2, 7, 100, 255, 256, 9000, 30000, 32768, 60000, 65535, top // 2 - 1, top // 2, top - 2, top - 1)
    return (int(rng.choice(values)) % top).to_bytes(size, byte_order)


def overwrite(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new[: max(len(data) - position, 0)] + data[position + len(new) :]


# --- Damage: DICOM headers -------------------------------------------------------------------------------------------

UIDS = [syntax for syntax in uid.AllTransferSyntaxes if not syntax.is_private]
META_UID = b"\x02\x00\x10\x00UI"


def split_deflated(data: bytes) -> tuple[bytes, bytes] | None:
    """File Meta Information and inflated data set of a deflated file."""
    if uid.DeflatedExplicitVRLittleEndian.encode() not in data[:600]:
        return None
    end = 144 + int.from_bytes(data[140:144], "little")
    try:
        return data[:end], zlib.decompress(data[end:], -zlib.MAX_WBITS)
    except zlib.error:  # damaged before
        return None


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@dataclass(frozen=True)
class Element:
    """Where an element's value and its length lie in a file."""

    keyword: str
    position: int
    length: int
    length_size: int
    byte_order: str


@lru_cache(50)
def elements(data: bytes) -> tuple[Element, ...]:
    """Of the data set, without those in sequences; none where pydicom can't read the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(BytesIO(data), force=True)
            raw = [dataset.get_item(tag) for tag in dataset.keys()]
    except Exception:
        return ()
    found = []
    for item in raw:
        if getattr(item, "value_tell", 0) and isinstance(item, pydicom.dataelem.RawDataElement):
            long = item.is_implicit_VR or item.VR in pydicom.valuerep.EXPLICIT_VR_LENGTH_32
            byte_order = "little" if item.is_little_endian else "big"
            keyword = pydicom.datadict.keyword_for_tag(item.tag)
            found.append(Element(keyword, item.value_tell, item.length, 4 if long else 2, byte_order))
    return tuple(found)


def set_header(rng: Generator, data: bytes) -> bytes:
    """Extreme values of what says how large the pixels are and what they mean."""
    meta, body = split_deflated(data) or (b"", data)
    plain = data if not meta else make_plain(meta, body)
    image = [e for e in elements(plain) if e.keyword in HEADER_INTEGERS or e.keyword in HEADER_TEXTS]
    for element in rng.permutation(len(image))[: rng.integers(1, 4)]:
        element = image[element]
        if element.keyword in HEADER_TEXTS:
            text = rng.choice(HEADER_TEXTS[element.keyword]).encode()
            new = text[: element.length].ljust(min(element.length, 64))
        else:
            new = extreme(rng, 2, element.byte_order)
            if rng.random() < 0.5:  # what a header could say
                new = int(rng.choice([1, 3, 8, 10, 12, 16, 32, 64, 512])).to_bytes(2, element.byte_order)
        plain = overwrite(plain, element.position, new)
    return meta + deflate(plain[len(plain) - len(body) :]) if meta else plain


HEADER_INTEGERS = frozenset(
    "Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation PlanarConfiguration "
    "PixelPaddingValue PixelPaddingRangeLimit RedPaletteColorLookupTableDescriptor".split()
)
HEADER_TEXTS = {
    "NumberOfFrames": ["0", "-1", "2", "2147483647", "99999999999", "x"],
    "WindowCenter": ["0", "-1e9", "1e308", "nan", "inf", "", "1\\2"],
    "WindowWidth": ["0", "-1", "1", "1e308", "1e-9", "nan", "inf", "", "1\\2"],
    "RescaleSlope": ["0", "-1", "1e308", "1e-300", "nan", ""],
    "RescaleIntercept": ["-1e9", "1e308", "inf", ""],
    "PhotometricInterpretation": [
        "MONOCHROME1",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
        "PALETTE COLOR",
        "YBR_RCT",
        "HSV",
        "",
    ],
    "Modality": ["CR", "CT", "", "\\"],
    "VOILUTFunction": ["SIGMOID", "LINEAR_EXACT", "x", ""],
}


def make_plain(meta: bytes, body: bytes) -> bytes:
    """A deflated file as if it were not."""
    return swap_uid(meta, uid.ExplicitVRLittleEndian) + body


def set_length(rng: Generator, data: bytes) -> bytes:
    """A wrong length of one element, sequences and pixel data among them."""
    found = elements(data)
    if not found:
        return set_integer(rng, data)
    element = found[rng.integers(len(found))]
    size = element.length_size
    return overwrite(data, element.position - size, extreme(rng, size, element.byte_order))


def swap_uid(data: bytes, syntax: str) -> bytes:
    at = data.find(META_UID, 0, 1000)
    if at < 0:
        return data
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value = syntax.encode() + bytes(len(syntax) % 2)
    swapped = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    group_length = int.from_bytes(data[140:144], "little") + len(value) - length
    return overwrite(swapped, 140, struct.pack("<I", max(group_length, 0)))


def swap_syntax(rng: Generator, data: bytes) -> bytes:
    return swap_uid(data, UIDS[rng.integers(len(UIDS))])


# --- Damage: streams -------------------------------------------------------------------------------------------------


@lru_cache(50)
def items(data: bytes) -> tuple[tuple[int, int], ...]:
    """Position and length of the items of encapsulated pixel data (PS3.5 A.4), the Basic Offset Table first."""
    found = []
    pixels = [element for element in elements(data) if element.keyword == "PixelData"]
    position = pixels[0].position if pixels and pixels[0].length == 2**32 - 1 else len(data)
    while data[position : position + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        found.append((position + 8, length))
        position += 8 + length
    return tuple(found)


def set_item(rng: Generator, data: bytes) -> bytes:
    """A wrong length of an item, an offset table, or no end of the sequence."""
    found = items(data)
    if not found:
        return set_length(rng, data)
    position, length = found[rng.integers(len(found))]
    kind = rng.integers(4)
    if kind == 0:
        near = max(length + int(rng.integers(-9, 10)), 0)
        return overwrite(data, position - 4, struct.pack("<I", near))
    if kind == 1:
        return data[:position] + rng.bytes(8) + data[position:]
    if kind == 2:
        return data[: found[-1][0] + found[-1][1]]
    return overwrite(data, position - 4, extreme(rng, 4, "little"))


def segments(stream: bytes) -> list[int]:
    """Where the marker segments of a JPEG, JPEG-LS or JPEG 2000 codestream begin, up to the first scan or tile."""
    start = max(stream.find(b"\xff\x4f\xff\x51", 0, 300), 0)
    found, position = [], start + 2
    while position + 4 <= len(stream) and stream[position] == 0xFF and len(found) < 60:
        found.append(position)
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[found[-1] + 1] in (0xDA, 0x93):
            break
    return found


def change_stream(rng: Generator, data: bytes) -> bytes:
    """Wrong values in marker segments or RLE headers, segments removed, repeated or moved, damage of coded data."""
    found = [item for item in items(data) if item[1] > 0]
    if found:
        position, length = found[0]
        end = position + length
    elif data[:2] in (b"\xff\xd8", b"\xff\x4f") or data[4:8] == b"jP  ":
        position, end = 0, len(data)
    else:
        return set_integer(rng, data)
    stream = data[position:end]
    marks = segments(stream)
    if not marks:  # RLE: the number of segments and their offsets (PS3.5 G.5)
        at = 4 * int(rng.integers(5)) if rng.random() < 0.7 else somewhere(rng, stream)
        stream = overwrite(stream, at, extreme(rng, 4, "little"))
    else:
        mark = marks[rng.integers(len(marks))]
        size = 2 + int.from_bytes(stream[mark + 2 : mark + 4], "big")
        segment = stream[mark : mark + size]
        kind = rng.integers(7)
        if kind <= 2:
            width = int(rng.choice([1, 2, 4]))
            stream = overwrite(stream, mark + int(rng.integers(2, max(size, 3))), extreme(rng, width, "big"))
        elif kind == 3:
            stream = stream[:mark] + stream[mark + size :]
        elif kind == 4:
            stream = stream[:mark] + segment * int(rng.integers(2, 5)) + stream[mark + size :]
        elif kind == 5:
            other = marks[rng.integers(len(marks))]
            stream = stream[:other] + segment + stream[other:]
        else:
            coded = marks[-1] + int(rng.integers(2, max(len(stream) - marks[-1], 3)))
            stream = overwrite(stream, coded, rng.bytes(int(rng.choice([1, 4, 64]))))
    if rng.random() < 0.5:
        stream = stream[: max(end - position, 2)]
    header = data[: position - 4] + struct.pack("<I", len(stream)) if found else b""
    return header + stream + data[end:]


def set_size(rng: Generator, data: bytes) -> bytes:
    """Header and stream agree on a size that neither has the data for."""
    rows, columns = (int(rng.choice([1, 57, 300, 2000, 5000])) for _ in range(2))
    if rng.random() < 0.05:
        rows, columns = 9400, 9400
    old = {e.keyword: e for e in elements(data) if e.keyword in ("Rows", "Columns")}
    if len(old) < 2:
        return set_integer(rng, data)
    was = {}
    for keyword, value in (("Rows", rows), ("Columns", columns)):
        element = old[keyword]
        was[keyword] = int.from_bytes(data[element.position : element.position + 2], element.byte_order)
        data = overwrite(data, element.position, value.to_bytes(2, element.byte_order))
    for layout, order in ((">HH", (0, 1)), (">II", (1, 0))):
        before, after = (was["Rows"], was["Columns"]), (rows, columns)
        pattern = struct.pack(layout, *(before[i] for i in order))
        data = data.replace(pattern, struct.pack(layout, *(after[i] for i in order)), 2)
    return data


def damage_deflated(rng: Generator, data: bytes) -> bytes:
    """Damage of the data set before it is deflated."""
    split = split_deflated(data)
    if split is None:
        return flip_bytes(rng, data)
    return split[0] + deflate(ANYWHERE[rng.integers(len(ANYWHERE))](rng, split[1]))


def repair_png(rng: Generator, data: bytes) -> bytes:
    """An extreme value in a PNG's chunk whose checksum is right."""
    if data[:4] != b"\x89PNG":
        return flip_bytes(rng, data)
    start = data.find(rng.choice([b"IHDR", b"IHDR", b"IDAT"]))
    size = int.from_bytes(data[start - 4 : start], "big")
    body = data[start + 4 : start + 4 + size]
    body = overwrite(body, int(rng.integers(min(max(len(body), 1), 40))), extreme(rng, int(rng.choice([1, 4])), "big"))
    crc = struct.pack(">I", zlib.crc32(data[start : start + 4] + body))
    return data[: start + 4] + body + crc + data[start + 8 + size :]


ANYWHERE: tuple[Callable[[Generator, bytes], bytes], ...] = (flip_bytes, flip_bit, truncate, change_block, set_integer)
DAMAGES = (
    *ANYWHERE,
    set_header,
    set_header,
    set_length,
    swap_syntax,
    set_item,
    change_stream,
    change_stream,
    change_stream,
    set_size,
    damage_deflated,
    repair_png,
)


def damaged(seed: int, folder: str = "") -> tuple[str, bytes]:
    """The case of a seed: what was done, and the file. From the real files where there is a folder."""
    rng = np.random.default_rng(seed)
    files = real_files(folder) if folder else synthetic_files()
    if folder and rng.random() < 0.6:  # radiographs; many of the others are refused for their modality
        names = [name for name in files if name.startswith("dicom_derived")]
    elif rng.random() < 0.95:
        names = [name for name in files if len(files[name]) < 500_000]
    else:
        names = list(files)
    name = names[rng.integers(len(names))]
    data, done = files[name], []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        if data:
            damage = DAMAGES[rng.integers(len(DAMAGES))]
            data = damage(rng, data)
            done.append(damage.__name__)
    return f"seed {seed}: {name}, {', '.join(done)}", data


# --- Hostile files ---------------------------------------------------------------------------------------------------

SIDE = 9400  # SIDE x SIDE pixels are just below what is accepted


def hostile_files() -> dict[str, Callable[[], bytes]]:
    """Small files that declare much; each must be refused, or read within the limits."""
    dot, grey = np.zeros((64, 56), np.uint16), np.zeros((64, 56), np.uint8)
    j2k = {"codecformat": "j2k", "reversible": True}
    streams = {
        uid.JPEGBaseline8Bit: lambda: imagecodecs.jpeg8_encode(grey),
        uid.JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(dot, bitspersample=12),
        uid.JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(dot, lossless=True, bitspersample=12),
        uid.JPEGLSLossless: lambda: imagecodecs.jpegls_encode(dot),
        uid.JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(dot, bitspersample=12, **j2k),
    }
    if hasattr(imagecodecs, "htj2k_encode"):
        streams[uid.HTJ2KLossless] = lambda: imagecodecs.htj2k_encode(dot, reversible=True)

    def of_size(syntax: str, rows: int, columns: int, stream_rows: int, stream_columns: int) -> bytes:
        stream = streams[syntax]()
        for layout, was, size in (
            (">HH", (64, 56), (stream_rows, stream_columns)),
            (">II", (56, 64), (stream_columns, stream_rows)),
        ):
            if max(size) < 2 ** (8 * struct.calcsize(layout) // 2):
                stream = stream.replace(struct.pack(layout, *was), struct.pack(layout, *size))
        return make_file(dot if "8Bit" not in syntax.keyword else grey, syntax, stream, Rows=rows, Columns=columns)

    def decoy(syntax: str, stream: bytes) -> bytes:
        """In a comment, the size the header says, as a JPEG 2000 stream would; the size that is decoded is another."""
        fake = b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 41, 0, 56, 64, 0, 0, 56, 64, 0, 0, 1) + bytes(3)
        comment = b"\xff\xfe" + struct.pack(">H", len(fake) + 2) + fake
        return make_file(grey, syntax, stream[:2] + comment + stream[2:])

    def jp2_decoy() -> bytes:
        jp2 = imagecodecs.jpeg2k_encode(dot, codecformat="jp2", reversible=True)
        real = jp2.replace(struct.pack(">II", 56, 64), struct.pack(">II", 60000, 60000))
        fake = jp2[jp2.index(b"\xff\x4f\xff\x51") :][:100]
        at = jp2.index(b"jp2h") - 4
        box = struct.pack(">I", 8 + len(fake)) + b"free" + fake
        real = real.replace(struct.pack(">II", 64, 56), struct.pack(">II", 60000, 60000))  # in the box ihdr
        return make_file(dot, uid.JPEG2000Lossless, real[:at] + box + real[at:])

    files = {
        "60000 x 60000": lambda: make_file(dot, Rows=60000, Columns=60000),
        "9400 x 9400 of 3,584 pixels": lambda: make_file(dot, Rows=SIDE, Columns=SIDE),
        "2^31 - 1 frames": lambda: make_file(
            dot, uid.JPEGLSLossless, imagecodecs.jpegls_encode(dot), NumberOfFrames=2**31 - 1
        ),
        "RLE that unfolds to less than its size": lambda: swap_uid(
            make_file(
                dot, uid.JPEGBaseline8Bit, b"\2\0\0\0\x40" + bytes(59) + b"\x81\0" * 2000, Rows=SIDE, Columns=SIDE
            ),
            uid.RLELossless,
        ),
        "JPEG behind a decoy": lambda: decoy(
            uid.JPEGBaseline8Bit,
            imagecodecs.jpeg8_encode(grey).replace(struct.pack(">HH", 64, 56), b"\xff\xdc" * 2),
        ),
        "JPEG lossless behind a decoy": lambda: decoy(
            uid.JPEGLosslessSV1,
            imagecodecs.jpeg8_encode(dot, lossless=True, bitspersample=12).replace(
                struct.pack(">HH", 64, 56), b"\xff\xdc" * 2
            ),
        ),
        "JPEG 2000 behind a decoy": jp2_decoy,
        "GIF of 200,000 frames": gif_bomb,
        "deflated 1,000 MB": lambda: deflate_bomb(1000),
        "deflated 200 MB": lambda: deflate_bomb(200),
        "PNG of 9400 x 9400": lambda: png_bomb(0, 8),
        "PNG of 9400 x 9400, RGBA": lambda: png_bomb(6, 8),
        "TIFF of 9400 x 9400, float": lambda: tiff_bomb(1, 1, 32, 3),
        "TIFF of 9400 x 9400, CMYK": lambda: tiff_bomb(5, 4, 8, 1),
        "TIFF of 9400 x 9400, 32 bit": lambda: tiff_bomb(1, 1, 32, 2),
    }
    for syntax in streams:
        files[f"{syntax.keyword} of 9400 x 9400"] = lambda s=syntax: of_size(s, SIDE, SIDE, SIDE, SIDE)
        files[f"{syntax.keyword} of 60000 x 60000"] = lambda s=syntax: of_size(s, 60000, 60000, 60000, 60000)
        files[f"{syntax.keyword} larger than its header"] = lambda s=syntax: of_size(s, 64, 56, 60000, 60000)
    return files


def deflate_bomb(megabytes: int) -> bytes:
    """About a thousandth of what it inflates to; whole blocks of zeros are repeated as they are."""
    data = make_file(np.zeros((64, 56), np.uint16), uid.DeflatedExplicitVRLittleEndian)
    meta, body = split_deflated(data)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    size = megabytes << 20
    at = elements(make_plain(meta, body))[-1].position - len(make_plain(meta, b""))
    start = deflater.compress(overwrite(body, at - 4, struct.pack("<I", size + len(body) - at)))
    start += deflater.flush(zlib.Z_FULL_FLUSH)
    block = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return meta + start + block * megabytes + deflater.flush()


def png_bomb(colour: int, bits: int) -> bytes:
    """A PNG of SIDE x SIDE zeros in 200 kB or less."""
    row = 1 + SIDE * (4 if colour == 6 else 1) * bits // 8
    deflater = zlib.compressobj(9)
    rows = b"".join(deflater.compress(bytes(row * 100)) for _ in range(SIDE // 100)) + deflater.flush()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif_bomb() -> bytes:
    gif = picture(np.zeros((8, 8), np.uint8), "GIF")
    frame = gif[gif.index(b"\x2c\0\0\0\0") : -1]
    return gif[:-1] + frame * 200_000 + b";"


def tiff_bomb(photometric: int, samples: int, bits: int, sample_format: int) -> bytes:
    """A TIFF of SIDE x SIDE zeros whose strips of 100 rows are all the same few bytes of the file."""
    strip, strips = zlib.compress(bytes(SIDE * 100 * samples * bits // 8), 9), SIDE // 100
    tags = {
        256: [SIDE],
        257: [SIDE],
        258: [bits] * samples,
        259: [8],  # deflate
        262: [photometric],
        273: [8] * strips,
        277: [samples],
        278: [100],
        279: [len(strip)] * strips,
        339: [sample_format] * samples,
    }
    directory, behind = struct.pack("<H", len(tags)), b""
    end = 8 + len(strip) + 2 + 12 * len(tags) + 4
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            directory += struct.pack("<HHII", tag, 4, len(values), end + len(behind))
            behind += packed
        else:
            directory += struct.pack("<HHI", tag, 4, 1) + packed
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + directory + bytes(4) + behind


# --- Children --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    case: str
    result: str  # "read", "refused", or what went wrong
    seconds: float = 0.0
    memory_mb: float = 0.0

    def fault(self) -> str:
        if self.result not in ("read", "refused"):
            return f"{self.case}: {self.result}"
        if self.memory_mb > MAX_MEMORY_MB:
            return f"{self.case}: {self.memory_mb:.0f} MB of memory"
        return f"{self.case}: {self.seconds:.0f} s" if self.seconds > MAX_SECONDS else ""


def peak_memory_mb() -> float:
    """Of this process since the last reset; `ru_maxrss` would begin with what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def run_one(case: str, data: bytes) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (proc(5))
    start = time.process_time()
    try:
        image = load_radiograph(data)
        result = "read" if image.mode == "L" and min(image.size) > 0 else f"an image {image}"
        del image
        if b"1.2.840.10008.1.2.4.9" in data[:1000]:  # JPEG 2000 has a faster decoder for small pictures
            squash_radiograph(data, [(14, 14)], fast=True)
    except RadiographError as error:
        result = "refused" if str(error).startswith("Cannot use the given bytes: ") else f"the message {error}"
    except BaseException:
        result = traceback.format_exc()
    return Outcome(case, result, time.process_time() - start, peak_memory_mb())


def run_child(log: str, folder: str, cases: Sequence[str]) -> None:
    """Cases are seeds, or names of `hostile_files`. One line before each case, one behind."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # for the machine's sake, far above what is asserted
    with open(log, "a", buffering=1) as lines:
        for key in cases:
            case, data = damaged(int(key), folder) if key.isdecimal() else (key, hostile_files()[key]())
            lines.write(json.dumps([case]) + "\n")
            faulthandler.dump_traceback_later(MAX_WAIT, exit=True)
            outcome = run_one(case, data)
            faulthandler.cancel_dump_traceback_later()
            lines.write(json.dumps(list(vars(outcome).values())) + "\n")


def run_cases(log: Path, folder: str, cases: Sequence[str]) -> list[Outcome]:
    """In children, one after another: one that dies is told as its last case, and the next goes on behind that."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        log.write_text("")
        command = [sys.executable, __file__, "--child", str(log), folder, *cases[len(outcomes) :]]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        outcomes += [Outcome(*line) for line in lines if len(line) > 1]
        if child.returncode or len(outcomes) < len(cases):
            assert len(lines) % 2, f"the child failed between two cases: {child.stderr[-2000:]}"
            outcomes.append(Outcome(lines[-1][0], f"ended with {child.returncode}: {child.stderr[-1000:]}"))
    return outcomes


def run_all(tmp_path: Path, folder: str, seeds: range) -> list[Outcome]:
    batches = [[str(seed) for seed in seeds[start : start + 250]] for start in range(0, len(seeds), 250)]
    logs = [tmp_path / f"{batch[0]}.jsonl" for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(run_cases, logs, [folder] * len(batches), batches))
    return [outcome for part in parts for outcome in part]


def check(outcomes: Sequence[Outcome], cases: int) -> Counter[str]:
    slowest, largest = max(outcomes, key=lambda o: o.seconds), max(outcomes, key=lambda o: o.memory_mb)
    results = Counter(outcome.result for outcome in outcomes)
    print(f"\n{len(outcomes)} cases, {results['read']} read, {results['refused']} refused")
    print(f"slowest {slowest.seconds:.2f} s ({slowest.case}), most memory {largest.memory_mb:.0f} MB ({largest.case})")
    assert len(outcomes) == cases
    faults = [fault for outcome in outcomes if (fault := outcome.fault())]
    assert not faults, f"{len(faults)} of {cases} cases:\n" + "\n".join(faults[:10])
    return results


# --- Tests -----------------------------------------------------------------------------------------------------------


def test_undamaged_files_are_read():
    """Else the cases would test the refusal of what was never right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in synthetic_files().items():
            assert load_radiograph(data).size == (56, 64), name


@pytest.mark.parametrize("damage", sorted(set(DAMAGES), key=lambda damage: damage.__name__))
def test_every_kind_of_damage_changes_files_it_is_made_for(damage):
    rng = np.random.default_rng(0)
    applies = {
        "set_item": lambda data: len(items(data)) > 0,
        "change_stream": lambda data: len(items(data)) > 0,
        "damage_deflated": lambda data: split_deflated(data) is not None,
        "repair_png": lambda data: data[:4] == b"\x89PNG",
    }.get(damage.__name__, lambda data: data[128:132] == b"DICM")
    for data in filter(applies, synthetic_files().values()):
        assert elements(data) or data[:4] == b"\x89PNG"
        assert any(damage(rng, data) != data for _ in range(5))


@pytest.mark.parametrize(("files", "cases"), [("synthetic", 1600), ("real", 1000)])
def test_damaged_files_are_read_or_refused(files, cases, tmp_path, request):
    folder = str(request.getfixturevalue("real_cxr") / "real_cxr") if files == "real" else ""
    results = check(run_all(tmp_path, folder, range(cases)), cases)
    assert min(results["read"], results["refused"]) > cases / 10  # the damage is neither too little nor too much


def test_small_files_that_declare_much_cost_little(tmp_path):
    """One child each for what is decoded: memory that a process has used it may keep, for the next case to count."""
    names = list(hostile_files())
    decoded = [name for name in names if "9400 x 9400" in name or "decoy" in name or "MB" in name]
    batches = [[name for name in names if name not in decoded], *([name] for name in decoded)]
    logs = [tmp_path / f"{number}.jsonl" for number in range(len(batches))]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(run_cases, logs, [""] * len(batches), batches))
    outcomes = [outcome for part in parts for outcome in part]
    check(outcomes, len(names))
    for outcome in outcomes:
        if "60000" in outcome.case or "larger than its header" in outcome.case or "decoy" in outcome.case:
            assert outcome.result == "refused" and outcome.memory_mb < 512, outcome


@pytest.mark.slow
@pytest.mark.parametrize("files", ["synthetic", "real"])
def test_many_damaged_files_are_read_or_refused(files, tmp_path, request):
    folder = str(request.getfixturevalue("real_cxr") / "real_cxr") if files == "real" else ""
    check(run_all(tmp_path, folder, range(10_000, 20_000)), 10_000)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        run_child(*sys.argv[2:4], sys.argv[4:])
    else:
        sys.stdout.buffer.write(damaged(int(sys.argv[1]), *sys.argv[2:3])[1])
