"""A DICOM radiograph's tags -> what its pixels mean and what is doubtful about it.

    header = read_header(dataset, "a.dcm")  # RadiographError where a value is malformed on which pixels depend
    check_header(header, "a.dcm")  # RadiographError where it contradicts itself; UserWarning for each doubt
    header.windows, header.inverted, turn_to_standard_view(header, True, "a.dcm")

Lookup tables, windows and shutters are read as far as they are plain; what is not usable is left out with a doubt. No
value is quoted that is not a code or a number.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .doubts import RadiographError, check_size, unusable, warn

# SC files of film scanners say OT; PS3.3 C.7.3.1.1.1 has no code of its own for them.
_RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "OT")
_DOUBTFUL_MODALITIES = ("DR", "XR", "XC", "RF")  # what scanners write for a radiograph, and what else they may mean
_FRONTAL_VIEWS = ("PA", "AP")
# PS3.16 CID 4010, in SNOMED CT and in the older SRT: antero-posterior, postero-anterior, frontal.
_FRONTAL_CODES = frozenset("399348003 272479007 399033003 R-10206 R-10214 R-40888 R-10202".split())
_VIEW_SCHEMES = ("SCT", "SRT", "SNM3", "99SDM")
_NOT_CHEST = frozenset(
    "ABDOMEN ANKLE ARM BREAST CALCANEUS CERVICAL COCCYX CSPINE ELBOW EXTREMITY FACE FEET FEMUR FIBULA FINGER FOOT "
    "FOREARM HAND HEAD HIP HUMERUS JAW KNEE KUB LEG LSPINE LUMBAR MANDIBLE NECK ORBIT PATELLA PELVIS RADIUS SACRUM "
    "SHOULDER SINUS SKULL SPINE SSPINE TEETH THIGH THUMB TIBIA TOE TSPINE ULNA WRIST".split()
)
_FOR_PROCESSING = ("1.2.840.10008.5.1.4.1.1.1.1.1",)  # SOP Class UID of DX images for processing, PS3.6 table A-1
# (rotated: rows point to head or feet; what should point left points right; what should point to the feet points to
# the head) -> what makes a picture stand upright, and what it is without that.
_TURNS = {
    (False, True, False): (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    (False, False, True): (Image.Transpose.FLIP_TOP_BOTTOM, "upside down"),
    (False, True, True): (Image.Transpose.ROTATE_180, "rotated by 180 degrees"),
    (True, False, False): (Image.Transpose.TRANSPOSE, "rotated and mirrored"),
    (True, True, False): (Image.Transpose.ROTATE_270, "rotated by 90 degrees"),
    (True, False, True): (Image.Transpose.ROTATE_90, "rotated by 90 degrees"),
    (True, True, True): (Image.Transpose.TRANSVERSE, "rotated and mirrored"),
}
VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class LookupTable:
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
class Region:
    """The part of a picture that a shutter or collimator leaves (PS3.3 C.7.6.11, C.8.7.3), edges in 1, 2, ..."""

    rectangle: tuple[int, int, int, int] | None = None  # first and last row, first and last column
    circle: tuple[int, int, int] | None = None  # row and column of the centre, radius
    polygon: tuple[tuple[int, int], ...] = ()  # rows and columns
    grey: int = 0  # what the rest is shown as

    def mask(self, size: tuple[int, int]) -> Image.Image:
        """White where the region is, of this (width, height)."""
        mask = Image.new("L", size, 255)
        for draw in (self._draw_rectangle, self._draw_circle, self._draw_polygon):
            part = Image.new("L", size, 0)
            if draw(ImageDraw.Draw(part)):
                mask.paste(0, mask=part.point(lambda shown: 255 - shown))
        return mask

    def _draw_rectangle(self, draw: ImageDraw.ImageDraw) -> bool:
        if self.rectangle:
            top, bottom, left, right = self.rectangle
            if left <= right and top <= bottom:
                draw.rectangle((left - 1, top - 1, right - 1, bottom - 1), fill=255)
        return self.rectangle is not None

    def _draw_circle(self, draw: ImageDraw.ImageDraw) -> bool:
        if self.circle:
            row, column, radius = self.circle
            draw.ellipse((column - 1 - radius, row - 1 - radius, column - 1 + radius, row - 1 + radius), fill=255)
        return self.circle is not None

    def _draw_polygon(self, draw: ImageDraw.ImageDraw) -> bool:
        if self.polygon:
            draw.polygon([(column - 1, row - 1) for row, column in self.polygon], fill=255)
        return bool(self.polygon)


@dataclass(frozen=True)
class Header:
    doubts: tuple[str, ...]
    view: str
    view_code: tuple[str, str, str]
    body_part: str
    orientation: tuple[str, str]
    burned_in_annotation: str
    photometric: str
    presentation_shape: str
    for_processing: bool
    intensity: str
    intensity_sign: int
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
    modality_lut: LookupTable | None
    voi_luts: tuple[LookupTable, ...]
    windows: tuple[tuple[float, float], ...]
    voi_function: str
    palette: tuple[LookupTable | None, ...]
    shutter: Region | None
    collimator: Region | None
    pixel_data: bytes = field(repr=False)

    def stored_values(self) -> np.ndarray:
        """The (2^bits_stored,) values that the pixel codes 0, 1, ... stand for."""
        values = np.arange(2**self.bits_stored)
        return np.where(self.signed & (values >= len(values) // 2), values - len(values), values)

    def clip(self, pixels: np.ndarray) -> np.ndarray:
        """Values that a lossy stream has beyond the stored range, which would wrap around to the other end."""
        low = -(2 ** (self.bits_stored - 1)) if pixels.dtype.kind == "i" else 0
        return pixels.clip(low, low + 2**self.bits_stored - 1)

    @property
    def inverted(self) -> bool:
        """Whether large values are dark."""
        if self.for_processing and self.intensity in ("LIN", "LOG") and self.intensity_sign:
            return self.intensity_sign > 0  # more X-rays, larger values
        return self.photometric == "MONOCHROME1" or self.presentation_shape == "INVERSE"

    @property
    def contradicts_its_shape(self) -> bool:
        """Whether Photometric Interpretation and Presentation LUT Shape do not belong together (C.8.11.3.1.2)."""
        shape = {"MONOCHROME1": "IDENTITY", "MONOCHROME2": "INVERSE"}.get(self.photometric)
        return self.presentation_shape == shape and not self.for_processing

    def is_simple(self, windowing: str) -> bool:
        """Whether a window or VOI LUT says how values are displayed, without a look at all pixels."""
        if self.signed or self.shutter or self.contradicts_its_shape:
            return False
        if windowing == "dicom" and self.voi_luts:
            return True
        return bool(self.windows) and self.windows[0][1] > 1 and self.voi_function in VOI_FUNCTIONS


def read_header(dataset: Any, name: str) -> Header:
    places = (dataset, *_functional_groups(dataset))
    doubts: list[str] = []

    def read(keyword: str, convert: Callable[[Any], Any], default: Any = None) -> Any:
        try:
            value = next((place.get(keyword) for place in places if keyword in place), None)
            if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
                value = value[0] if value else None
            return default if value is None or value == "" else convert(value)
        except Exception:  # pydicom converts a value when it is read, and raises whatever a bad one runs into
            raise unusable(name, f"its {keyword} is malformed") from None

    def read_optional(keyword: str, convert: Callable[[Any], Any], default: Any) -> Any:
        """Of what no picture depends on, a malformed value is as good as none."""
        try:
            return read(keyword, convert, default)
        except RadiographError:
            return default

    def read_all(keyword: str, count: int) -> tuple[int, ...] | None:
        """As many integers, or None where there are others or none."""
        try:
            values = dataset.get(keyword)
            numbers = tuple(int(value) for value in (values if isinstance(values, Sequence) else [values]))
        except Exception:  # see above
            return None
        return numbers if len(numbers) == count or (count == 0 and len(numbers) % 2 == 0) else None

    def palette_table(colour: str) -> LookupTable:
        return read(
            f"{colour}PaletteColorLookupTableDescriptor",
            lambda _: _read_lookup_table(dataset, f"{colour}PaletteColorLookupTable", byte_order, doubts.append),
        )

    def modality_table(item: Any) -> LookupTable | None:
        try:
            return _read_lookup_table(item, "LUT", byte_order, doubts.append)
        except Exception:  # see `read`
            if "RescaleSlope" not in dataset:
                raise
            doubts.append("its Modality LUT cannot be used, its RescaleSlope and RescaleIntercept are")
            return None

    modality = read("Modality", _code_string, "")
    if modality in _DOUBTFUL_MODALITIES:
        doubts.append(f"its modality is {modality}; it is read as a radiograph")
    elif modality and modality not in _RADIOGRAPH_MODALITIES:
        wanted = ", ".join((*_RADIOGRAPH_MODALITIES, *_DOUBTFUL_MODALITIES))
        raise unusable(name, f"its modality is {modality}, not a radiograph's ({wanted})")
    byte_order = ">" if dataset.original_encoding[1] is False else "<"
    photometric = read("PhotometricInterpretation", _code_string, "")
    bits_allocated = read("BitsAllocated", int, 0)
    bits_stored = read("BitsStored", int, bits_allocated)
    padding = read("PixelPaddingValue", int)
    colours = ("Red", "Green", "Blue") if photometric == "PALETTE COLOR" else ()
    palette = [palette_table(colour) for colour in colours]
    voi_luts = _read_voi_luts(places, byte_order, doubts)
    return Header(
        view=read("ViewPosition", _code_string, ""),
        view_code=read_optional("ViewCodeSequence", _item_code, ("", "", "")),
        body_part=read("BodyPartExamined", _code_string, "")
        or read_optional("AnatomicRegionSequence", _item_part, ""),
        orientation=_read_orientation(dataset),
        burned_in_annotation=read("BurnedInAnnotation", _code_string, ""),
        photometric=photometric,
        presentation_shape=read_optional("PresentationLUTShape", _code_string, ""),
        for_processing=read_optional("PresentationIntentType", _code_string, "") == "FOR PROCESSING"
        or read_optional("SOPClassUID", str, "") in _FOR_PROCESSING,
        intensity=read_optional("PixelIntensityRelationship", _code_string, ""),
        intensity_sign=read_optional("PixelIntensityRelationshipSign", int, 0),
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
        modality_lut=read("ModalityLUTSequence", modality_table),
        voi_luts=voi_luts,
        windows=_read_windows(places, doubts),
        voi_function=read("VOILUTFunction", _code_string, "LINEAR"),
        palette=_palette_of_same_bits(palette, doubts.append),
        shutter=_read_region("Shutter", read_optional("ShutterShape", _code_string, ""), read_all, doubts),
        collimator=_read_region("Collimator", read_optional("CollimatorShape", _code_string, ""), read_all, []),
        pixel_data=read("PixelData", lambda value: value if isinstance(value, bytes) else b"", b""),
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _functional_groups(dataset: Any) -> list[Any]:
    """The first frame's functional group macros of an enhanced object (PS3.3 C.7.6.16), which hold its window."""
    macros = []
    try:
        for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            groups = dataset.get(keyword) or []
            for element in groups[0] if len(groups) else []:
                if element.VR == "SQ" and len(element.value) == 1:
                    macros.append(element.value[0])
    except Exception:  # what cannot be read is as if it were not there: these are no radiograph's usual place
        pass
    return macros


def _code_string(value: Any) -> str:
    """The code, or "?" for what is no code string and must not be repeated in a message."""
    code = str(value).strip("\0 ").upper()
    return code if re.fullmatch(r"[A-Z0-9_ ]{0,16}", code) else "?"


def _item_code(item: Any) -> tuple[str, str, str]:
    """Code value, scheme and meaning of an item of a code sequence; the meaning is free text, not to be repeated."""
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return tuple(str(item.get(keyword) or "").strip().upper() for keyword in keywords)


def _item_part(item: Any) -> str:
    """The word of `_NOT_CHEST` that a code's meaning has, "" for none."""
    return _other_body_part(_item_code(item)[2])


def _other_body_part(text: str) -> str:
    """What part of the body other than the chest a text names, "" for none."""
    words = re.split(r"[^A-Z]+", text)
    if "CHEST" in words or "THORAX" in words:
        return ""
    return next((w for w in words if any(w.endswith(part) or w == f"{part}S" for part in _NOT_CHEST)), "")


def _read_orientation(dataset: Any) -> tuple[str, str]:
    """Where rows and columns point: the first letters of Patient Orientation, "" where it has others."""
    try:
        directions = [str(value).strip().upper()[:1] for value in dataset.get("PatientOrientation") or []]
    except Exception:  # see read_header
        return "", ""
    return tuple(directions) if len(directions) == 2 and set(directions) <= set("LRAPHF") else ("", "")


def _finite(value: Any) -> float:
    if not np.isfinite(float(value)):
        raise ValueError("not finite")
    return float(value)


def _read_windows(places: Sequence[Any], doubts: list[str]) -> tuple[tuple[float, float], ...]:
    """(centre, width) of the windows that are numbers."""
    texts = [_window_texts(places, keyword) for keyword in ("WindowCenter", "WindowWidth")]
    windows, bad = [], ""
    for pair in zip(*texts, strict=False):
        numbers = []
        for keyword, text in zip(("WindowCenter", "WindowWidth"), pair, strict=True):
            if re.fullmatch(r"[+-]?\d+,\d+", text):
                doubts.append(f"its {keyword} has a comma, it is read as {text.replace(',', '.')}")
                text = text.replace(",", ".")
            try:
                numbers.append(_finite(text))
            except ValueError:
                bad = bad or (keyword if text else "")
        if len(numbers) == 2:
            windows.append((numbers[0], numbers[1]))
    if bad:
        doubts.append(f"its {bad} is no number, the window is left out")
    return tuple(windows)


def _window_texts(places: Sequence[Any], keyword: str) -> list[str]:
    """The values of a tag as they are written, where pydicom would refuse all for one that is no number."""
    place = next((place for place in places if keyword in place), None)
    if place is None:
        return []
    try:
        value = place.get(keyword)
    except Exception:
        value = getattr(place.get_item(keyword), "value", b"")
        value = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Sequence) else [value]
    return [str(getattr(value, "original_string", value)).strip("\0 ") for value in values]


def _read_voi_luts(places: Sequence[Any], byte_order: str, doubts: list[str]) -> tuple[LookupTable, ...]:
    tables = []
    try:
        items = next((place.get("VOILUTSequence") for place in places if "VOILUTSequence" in place), None) or []
    except Exception:  # see read_header
        items = [None]
    for item in items:
        said: list[str] = []
        try:
            table = _read_lookup_table(item, "LUT", byte_order, said.append)
            needed = max(int(table.data.max()).bit_length(), 1)
            if needed != table.bits:
                said.append(f"its VOI LUT says {table.bits} bits, its data have {needed}; the data are believed")
            tables.append(replace(table, bits=needed))
        except Exception:
            said = ["its VOI LUT cannot be used (its data and its descriptor do not fit), it is left out"]
        doubts += said if len(tables) < 2 else []
    return tuple(tables)


def _read_lookup_table(dataset: Any, keyword: str, byte_order: str, doubt: Callable[[str], None]) -> LookupTable:
    """A LUT whose descriptor may be wrong about its data, which are then believed.

    Raises:
        ValueError: more than an eighth of the entries is missing.
    """
    table = "LUT" if keyword == "LUT" else "palette"
    entries, first, bits = (int(value) for value in dataset[f"{keyword}Descriptor"].value)
    entries = entries % 2**16 or 2**16  # 0 says 65536; a negative count was read as signed
    data = dataset[f"{keyword}Data"].value
    if isinstance(data, bytes):
        data = _table_entries(data, entries, bits, byte_order)
    data = np.atleast_1d(np.asarray(data, dtype=np.int64)) % 2**16
    if len(data) < entries:
        if len(data) * 8 < entries * 7:
            raise ValueError("the table does not match its descriptor")
        doubt(
            f"its {table} has {len(data)} of the {entries} entries that its descriptor says; the last one is repeated"
        )
    elif data[entries:].any():
        doubt(f"its {table} has {len(data)} entries, its descriptor says {entries}; all are used")
    else:
        data = data[:entries]
    return LookupTable(first % 2**16, bits, data)


def _table_entries(data: bytes, entries: int, bits: int, byte_order: str) -> np.ndarray:
    """The entries of a LUT: words, or bytes where there are too few bytes for words and 8 bits will do.

    As many bytes as entries that should have more than 8 bits are one or the other: words read as bytes are no curve.
    """
    as_bytes = np.frombuffer(data, np.uint8)
    as_words = np.frombuffer(data[: len(data) // 2 * 2], f"{byte_order}u2")
    if len(data) >= 2 * entries:
        return as_words
    if bits <= 8:
        return as_bytes
    if len(data) not in (entries, entries + entries % 2):
        return as_words
    return as_bytes if _roughness(as_bytes) < 2 * _roughness(as_words) else as_words


def _roughness(values: np.ndarray) -> float:
    """The length of a curve's way up and down in units of its height: 1 where it only rises or falls."""
    values = values.astype(np.int64)
    return float(np.abs(np.diff(values)).sum() / max(int(np.ptp(values)), 1))


def _palette_of_same_bits(
    palette: Sequence[LookupTable | None], doubt: Callable[[str], None]
) -> tuple[LookupTable | None, ...]:
    """A palette that says 16 bits and has 8 in all of its colours, or has more than it says, as its data are."""
    if not palette or None in palette:
        return tuple(palette)
    needed = max(int(table.data.max()).bit_length() for table in palette)
    said = max(table.bits for table in palette)
    if needed <= said and (needed > 8 or said == 8 or needed == 0):
        return tuple(palette)
    bits = max(needed, 8)
    if bits == said:
        return tuple(palette)
    doubt(f"its palette's descriptor says {said} bits, its data have {bits}; the data are believed")
    return tuple(replace(table, bits=bits) for table in palette)


def _read_region(
    kind: str, shapes: str, read_all: Callable[[str, int], tuple[int, ...] | None], doubts: list[str]
) -> Region | None:
    """A Display Shutter ("Shutter") or an X-Ray Collimator ("Collimator"); None where there is none."""
    if not shapes:
        return None
    edges = ("UpperHorizontalEdge", "LowerHorizontalEdge", "LeftVerticalEdge", "RightVerticalEdge")
    rectangle = [read_all(kind + edge, 1) for edge in edges]
    centre, radius = read_all(f"CenterOfCircular{kind}", 2), read_all(f"RadiusOfCircular{kind}", 1)
    vertices = read_all(f"VerticesOfThePolygonal{kind}", 0) or ()
    shown = read_all("ShutterPresentationValue", 1)
    region = Region(
        tuple(edge[0] for edge in rectangle) if None not in rectangle else None,
        (*centre, *radius) if centre and radius and radius[0] > 0 else None,
        tuple(zip(vertices[::2], vertices[1::2], strict=True)) if len(vertices) >= 6 else (),
        round(min(max(shown[0], 0), 65535) / 257) if shown else 0,
    )
    if not (region.rectangle or region.circle or region.polygon):
        doubts.append("its display shutter is malformed, it is left out")
        return None
    return region


def check_header(header: Header, name: str) -> None:
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
    for doubt in (*header.doubts, *_doubts_about_what_it_shows(header)):
        warn(name, doubt)


def _doubts_about_what_it_shows(header: Header) -> Iterator[str]:
    if header.frames > 1:
        yield f"it has {header.frames} frames, the first is used"
    value, scheme, meaning = header.view_code
    if header.view and not set(header.view.split()) & set(_FRONTAL_VIEWS):
        yield f"its ViewPosition is {header.view}, not PA or AP"
    elif scheme in _VIEW_SCHEMES and value not in _FRONTAL_CODES or _is_another_view(meaning):
        yield f"its ViewCodeSequence ({_code_string(value.replace('-', ' '))}) is another view than PA or AP"
    elif header.orientation[0] in ("A", "P") or header.orientation[1] in ("A", "P"):
        yield "its PatientOrientation is a lateral view's"
    if part := _other_body_part(header.body_part):
        yield f"its BodyPartExamined is {header.body_part if part in header.body_part else part}, not the chest"
    if header.burned_in_annotation == "YES":
        yield "text is burned into its picture (BurnedInAnnotation), which may tell who the patient is"
    if header.for_processing:
        shown = "through a logarithm" if header.intensity == "LIN" else "by their range"
        yield f"it is FOR PROCESSING: raw values of the detector, shown {shown}" + (
            "" if not (header.windows or header.voi_luts) else " or its window"
        )


def _is_another_view(meaning: str) -> bool:
    return any(word in meaning for word in ("LATERAL", "OBLIQUE", "AXIAL", "LORDOTIC", "SAGITTAL", "DECUBITUS"))


def turn_to_standard_view(header: Header, turned: bool, name: str) -> Image.Transpose | None:
    """What brings the picture to rows that point to the patient's left and columns that point to the feet."""
    along_rows, along_columns = header.orientation
    rotated = along_rows in ("H", "F")
    if rotated:
        along_rows, along_columns = along_columns, along_rows
    if along_rows not in ("L", "R") or along_columns not in ("H", "F"):
        return None
    turn, how = _TURNS.get((rotated, along_rows == "R", along_columns == "H"), (None, ""))
    if turn is not None:
        does = "it is turned to the standard view, boxes are in the picture as given" if turned else "it is left so"
        warn(name, f"it is stored {how} (PatientOrientation {'/'.join(header.orientation)}): {does}")
    return turn
