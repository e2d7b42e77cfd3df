"""Headers that say something else than the pixels: the right picture where the file says enough, and a warning.

Each file is a phantom of a chest whose right picture is known. `shown` gives the picture and what was said of it.
"""

import warnings
from collections.abc import Sequence
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import box_as_given, load_radiograph, squash_radiograph
from tests.processing.chest_picture import chest
from tests.processing.test_dicom import make_dataset, to_bytes

DEEP = np.rint(chest().astype(float) / 255 * 4095).astype(np.uint16)  # 12 bits
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def shown(source) -> tuple[np.ndarray, list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = load_radiograph(source)
    return np.asarray(picture, int), picture.info.get("warnings", [])


def check(source, said: str | Sequence[str], expected: np.ndarray | None = None, off: float = 0.6) -> None:
    """The picture is the expected one, `off` grey levels on average or nearer, and only this is said of it."""
    found, told = shown(source)
    parts = [said] if isinstance(said, str) and said else list(said)
    assert len(told) == len(parts) and all(part in text for part, text in zip(parts, told, strict=True)), told
    assert abs(found - (chest() if expected is None else expected)).mean() <= off


def lut(data: Sequence[int], first: int = 0, bits: int = 16, entries: int | None = None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data) if entries is None else entries, first, bits])
    item.add_new("LUTData", "OW", np.asarray(data, "<u2").tobytes())
    return item


def curve(top: int, entries: int = 4096) -> np.ndarray:
    return np.rint(np.arange(entries) / (entries - 1) * top).astype(int)


def encapsulated(stream: bytes, pixels: np.ndarray, bits: int, syntax: uid.UID, **tags) -> Dataset:
    dataset = make_dataset(pixels, bits, syntax, **tags)
    dataset.PixelData = encapsulate([stream + bytes(len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    return dataset


# --- VOI LUT, Modality LUT, palette ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "held"), [(16, 12), (16, 10), (16, 14), (8, 12), (12, 16), (12, 10)])
def test_a_voi_lut_is_as_deep_as_its_data(said, held):
    tags = {"VOILUTSequence": [lut(curve(2**held - 1), bits=said)]}
    check(make_dataset(DEEP, 12, **tags), f"VOI LUT says {said} bits, its data have {held}")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_voi_lut_that_is_as_it_says_is_not_doubted(bits):
    check(make_dataset(DEEP, 12, VOILUTSequence=[lut(curve(2**bits - 1), bits=bits)]), "")


@pytest.mark.parametrize("missing", [1, 100, 500])
def test_the_last_entry_stands_for_the_few_that_are_missing(missing):
    tags = {"VOILUTSequence": [lut(curve(65535)[:-missing], entries=4096)]}
    expected = np.rint(np.minimum(DEEP, 4095 - missing) / 4095 * 255)
    check(make_dataset(DEEP, 12, **tags), f"{4096 - missing} of the 4096 entries", expected)


def test_entries_beyond_the_descriptor_s_number_are_used():
    tags = {"VOILUTSequence": [lut(curve(65535), entries=2048)]}
    check(make_dataset(DEEP, 12, **tags), "4096 entries, its descriptor says 2048")


def test_a_short_lut_of_words_is_not_read_as_bytes():
    """Half of the entries are as many bytes as there should be entries."""
    tags = {"VOILUTSequence": [lut(curve(65535)[:2048], entries=4096)], **WINDOW}
    check(make_dataset(DEEP, 12, **tags), "VOI LUT cannot be used")


def test_a_lut_of_bytes_is_read_as_bytes_though_it_says_16_bits():
    item = lut([0], entries=4096)
    item.LUTData = curve(255).astype(np.uint8).tobytes()
    check(make_dataset(DEEP, 12, VOILUTSequence=[item]), "VOI LUT says 16 bits, its data have 8")


@pytest.mark.parametrize("keyword", ["LUTData", "LUTDescriptor"])
def test_the_window_serves_where_the_voi_lut_is_not_whole(keyword):
    item = lut(curve(65535)[::-1])
    del item[keyword]
    check(make_dataset(DEEP, 12, VOILUTSequence=[item], **WINDOW), "VOI LUT cannot be used")
    check(
        make_dataset(DEEP, 12, VOILUTSequence=[item, lut(curve(65535))], WindowCenter=1, WindowWidth=2),
        "VOI LUT cannot",
    )


def test_the_voi_lut_serves_where_the_window_is_none():
    check(make_dataset(DEEP, 12, VOILUTSequence=[lut(curve(65535))], WindowCenter=2048, WindowWidth=0), "")


def test_the_window_serves_where_the_voi_lut_shows_nothing():
    tags = {"VOILUTSequence": [lut(curve(65535), first=60000)], **WINDOW}
    check(
        make_dataset(DEEP, 12, **tags),
        "its VOI LUT does not belong to its pixels, which it leaves nearly blank; its window is",
    )


def test_rescale_serves_where_the_modality_lut_is_not_whole():
    tags = {"ModalityLUTSequence": [Dataset()], "RescaleSlope": 1, "RescaleIntercept": 0, **WINDOW}
    check(make_dataset(DEEP, 12, **tags), "Modality LUT cannot be used")
    with pytest.raises(RadiographError, match="ModalityLUTSequence is malformed"):
        shown(make_dataset(DEEP, 12, ModalityLUTSequence=[Dataset()], **WINDOW))


def test_a_modality_lut_shorter_than_it_says_is_used():
    tags = {"ModalityLUTSequence": [lut(curve(4095)[:-1], entries=4096)], **WINDOW}
    check(make_dataset(DEEP, 12, **tags), "4095 of the 4096 entries")


def test_a_palette_that_says_16_bits_and_has_8_is_not_black():
    tags = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")}
    tags |= {
        f"{c}PaletteColorLookupTableData": np.arange(256, dtype="<u2").tobytes() for c in ("Red", "Green", "Blue")
    }
    check(
        make_dataset(chest(), PhotometricInterpretation="PALETTE COLOR", **tags), "palette's descriptor says 16 bits"
    )


# --- Windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("center", "width"), [(40, 400), (128, 256), (100000, 10), (2047, 4095), (-600, 1500), (2**17, 2**18)], ids=str
)
def test_a_window_that_shows_nothing_gives_way_to_the_range(center, width):
    pixels = (DEEP.astype(int) * 4 + 16000).astype(np.uint16)
    check(make_dataset(pixels, 16, WindowCenter=center, WindowWidth=width), "its window does not belong to its pixels")


@pytest.mark.parametrize("width", [1024, 4095, 65536])
def test_eight_bits_beside_the_window_of_the_original_stay_as_they_are(width):
    check(
        make_dataset(chest(), WindowCenter=width // 2, WindowWidth=width), "its window does not belong to its pixels"
    )


def test_a_picture_of_nothing_keeps_its_window_and_is_doubted_itself():
    found, told = shown(make_dataset(np.full((100, 100), 700, np.uint16), 12, **WINDOW))
    assert found.min() == found.max() == 44
    assert told == ["it has almost no contrast: most of it lies within 0 of 256 grey levels"]


def with_text(keyword: str, text: bytes) -> bytes:
    """A file whose window is written as `text`, a decimal string or not."""
    dataset = make_dataset(DEEP, 12, **WINDOW)
    dataset.add_new(keyword, "LO", text.decode())
    data = to_bytes(dataset)
    tag = Tag(keyword)
    element = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    assert element + b"LO" in data
    return data.replace(element + b"LO", element + b"DS")


@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth"])
def test_a_window_of_text_is_left_out_and_not_told(keyword):
    found, told = shown(with_text(keyword, b"DOE^JANE"))
    assert told == [f"its {keyword} is no number, the window is left out"]
    assert abs(found - chest()).mean() < 0.6


def test_a_decimal_comma_is_a_decimal_point():
    check(with_text("WindowCenter", b"2047,5"), "comma, it is read as 2047.5")
    check(with_text("WindowWidth", b"4096,0"), "comma, it is read as 4096.0")


def test_the_next_window_serves_where_the_first_is_none():
    dataset = make_dataset(DEEP, 12, WindowCenter=[1, 2048], WindowWidth=[0, 4096])
    check(dataset, "WindowWidth is 0")


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_the_window_of_an_enhanced_object_is_found(groups):
    voi, group = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 3000, 4096
    group.FrameVOILUTSequence = [voi]
    expected, _ = shown(make_dataset(DEEP, 12, WindowCenter=3000, WindowWidth=4096))
    check(make_dataset(DEEP, 12, **{groups: [group]}), "", expected, off=0)


# --- No window -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [63536, 16383, 65535])
@pytest.mark.parametrize("where", ["border", "marker", "two markers"])
def test_a_border_or_marker_far_from_the_rest_takes_no_grey_levels(value, where):
    pixels = DEEP.copy()
    pixels[(slice(None), slice(0, 40)) if where == "border" else (slice(5, 25), slice(5, 35))] = value
    if where == "two markers":
        pixels[5:25, 200:220] = value // 2 + 4096
    found, told = shown(make_dataset(pixels, 16))
    inside = (slice(30, None), slice(40, None))
    assert abs(found[inside] - chest()[inside]).mean() < 1
    assert told == ["it has no window, and a border or marker far from the other values; it is shown without these"]


def test_a_range_that_leaves_the_anatomy_its_grey_levels_stays_full():
    pixels = DEEP.copy()
    pixels[5:25, 5:35] = 8000  # the anatomy keeps more than half of the grey levels
    found, told = shown(make_dataset(pixels, 16))
    assert not told and np.array_equal(found, np.rint(pixels / 8000 * 255))


@pytest.mark.parametrize("kind", ["Shutter", "Collimator"])
def test_what_is_outside_of_a_shutter_or_collimator_takes_no_grey_levels(kind):
    pixels = DEEP // 2
    pixels[:, :30] = 4095
    tags = {f"{kind}Shape": "RECTANGULAR", f"{kind}LeftVerticalEdge": 31, f"{kind}RightVerticalEdge": 240}
    tags |= {f"{kind}UpperHorizontalEdge": 1, f"{kind}LowerHorizontalEdge": 300}
    found, told = shown(make_dataset(pixels, 12, **tags))
    assert not told and abs(found[:, 30:] - chest()[:, 30:]).mean() < 1.5
    assert (found[:, :30] == (0 if kind == "Shutter" else 255)).all()


# --- What large values are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("stored", ["positive", "negative"])
def test_a_contradictory_presentation_lut_shape_is_settled_by_the_picture(photometric, shape, stored):
    contradicts = (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))
    pixels = chest() if stored == "positive" else 255 - chest()
    dataset = make_dataset(pixels, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    if contradicts:
        check(dataset, f"PresentationLUTShape {shape} contradicts {photometric}", off=0)
    else:
        found, told = shown(dataset)
        assert np.array_equal(found, pixels if photometric == "MONOCHROME2" else 255 - pixels)
        assert told == [] or "looks inverted" in told[0]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("told_by", ["intent", "SOP class"])
def test_raw_detector_values_are_shown_through_a_logarithm(sign, told_by):
    linear = 60000 * np.exp(-5.0 * chest() / 255) if sign > 0 else 400 * np.exp(5.0 * chest() / 255)
    tags = {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": sign}
    tags |= {"PresentationIntentType": "FOR PROCESSING"} if told_by == "intent" else {}
    dataset = make_dataset(np.rint(linear).astype(np.uint16), 16, **tags)
    dataset.PhotometricInterpretation = "MONOCHROME1" if sign > 0 else "MONOCHROME2"
    if told_by != "intent":
        dataset.SOPClassUID = uid.DigitalXRayImageStorageForProcessing
    check(dataset, "FOR PROCESSING", off=1)


def test_padding_that_its_header_makes_white_is_told():
    pixels = 4095 - DEEP
    pixels[:, :40] = 0
    dataset = make_dataset(pixels, 12, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    dataset.add_new("PixelPaddingValue", "US", 0)
    assert [text.partition(" ")[2] for text in shown(dataset)[1]] == [
        "% of it is padding, which its header makes white"
    ]


# --- Shutters --------------------------------------------------------------------------------------------------------


def test_a_display_shutter_covers_what_is_outside():
    rows, columns = np.mgrid[1:301, 1:241]
    shutters = [
        (
            {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 21, "ShutterRightVerticalEdge": 220}
            | {"ShutterUpperHorizontalEdge": 11, "ShutterLowerHorizontalEdge": 290},
            (columns >= 21) & (columns <= 220) & (rows >= 11) & (rows <= 290),
        ),
        (
            {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [150, 120], "RadiusOfCircularShutter": 110},
            (rows - 150) ** 2 + (columns - 120) ** 2 <= 110**2,
        ),
        (
            {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [20, 20, 20, 220, 280, 220, 280, 20]},
            (columns >= 20) & (columns <= 220) & (rows >= 20) & (rows <= 280),
        ),
    ]
    for tags, visible in shutters:
        found, told = shown(make_dataset(chest(), ShutterPresentationValue=0x4040, **tags))
        assert not told
        assert (found != np.where(visible, chest(), 64)).mean() < 0.01, tags["ShutterShape"]


def test_a_shutter_that_hides_everything_is_left_out():
    tags = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [1, 1], "RadiusOfCircularShutter": 20}
    check(make_dataset(chest(), **tags), "its display shutter hides nearly all of it")
    check(make_dataset(chest(), ShutterShape="CIRCULAR"), "its display shutter is malformed")


# --- What it shows ---------------------------------------------------------------------------------------------------


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


@pytest.mark.parametrize("modality", ["DR", "XR", "XC", "RF"])
def test_modalities_that_scanners_write_for_radiographs_are_read(modality):
    check(make_dataset(chest(), Modality=modality), f"its modality is {modality}")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ViewCodeSequence": code("R-10236", "SRT", "left lateral")}, "ViewCodeSequence (R 10236) is another view"),
        ({"ViewCodeSequence": code("399198007", "SCT", "")}, "ViewCodeSequence (399198007) is another view"),
        ({"ViewCodeSequence": code("X", "99LOCAL", "Thorax lateral")}, "is another view"),
        ({"ViewCodeSequence": code("R-10206", "SRT", "antero-posterior")}, ""),
        ({"ViewCodeSequence": code("272479007", "SCT", "postero-anterior")}, ""),
        ({"ViewPosition": "PA", "ViewCodeSequence": code("R-10214", "SNM3", "postero-anterior")}, ""),
        ({"ViewPosition": "LATERAL"}, "ViewPosition is LATERAL"),
        ({"PatientOrientation": ["A", "F"]}, "PatientOrientation is a lateral view's"),
        ({"BodyPartExamined": "TSPINE"}, "BodyPartExamined is TSPINE"),
        ({"BodyPartExamined": "LUMBAR SPINE"}, "BodyPartExamined is LUMBAR SPINE"),
        ({"BodyPartExamined": "LOWERLEG"}, "BodyPartExamined is LOWERLEG"),
        ({"BodyPartExamined": "HANDS"}, "BodyPartExamined is HANDS"),
        ({"AnatomicRegionSequence": code("T-11500", "SRT", "Vertebral column, cervical spine")}, "not the chest"),
        ({"AnatomicRegionSequence": code("T-D3000", "SRT", "Chest")}, ""),
        ({"BodyPartExamined": "CHEST"}, ""),
        ({"BodyPartExamined": "THORAX"}, ""),
        ({"BodyPartExamined": "RIB"}, ""),
    ],
)
def test_another_view_or_body_part_is_told_wherever_it_stands(tags, said):
    check(make_dataset(chest(), **tags), said, off=0)


# --- Orientation -----------------------------------------------------------------------------------------------------

STORED = {  # how the chest is stored -> Patient Orientation
    "mirrored": (lambda greys: greys[:, ::-1], ["R", "F"]),
    "upside down": (lambda greys: greys[::-1], ["L", "H"]),
    "rotated by 180 degrees": (lambda greys: greys[::-1, ::-1], ["R", "H"]),
    "rotated by 90 degrees": (lambda greys: np.rot90(greys), ["F", "R"]),
    "rotated by 90 degrees, the other way": (lambda greys: np.rot90(greys, -1), ["H", "L"]),
    "rotated and mirrored": (lambda greys: greys.T, ["F", "L"]),
    "rotated and mirrored, the other way": (lambda greys: np.rot90(greys.T, 2), ["H", "R"]),
    "rotated by 90 degrees, oblique": (lambda greys: np.rot90(greys), ["FA", "RP"]),
}


@pytest.mark.parametrize("how", STORED)
def test_a_radiograph_stored_otherwise_is_shown_upright_and_its_boxes_come_back(how):
    store, orientation = STORED[how]
    dataset = make_dataset(np.ascontiguousarray(store(chest())), PatientOrientation=orientation)
    with pytest.warns(UserWarning, match=f"it is stored {how.partition(',')[0]} .*is turned to the standard view"):
        squashed = squash_radiograph(dataset, [(240, 300), (64, 80)])
    assert np.array_equal(np.asarray(squashed.pictures[240, 300]), chest())
    upright = squash_radiograph(chest(), [(64, 80)]).pictures[64, 80]
    assert np.array_equal(np.asarray(squashed.pictures[64, 80]), np.asarray(upright))
    assert squashed.size == (dataset.Columns, dataset.Rows) and len(squashed.warnings) == 1

    marked = np.zeros((300, 240), np.uint8)
    marked[60:120, 24:96] = 255
    rows, columns = np.nonzero(store(marked))
    given = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    box = box_as_given((0.1, 0.2, 0.4, 0.4), squashed.turn)
    assert box == pytest.approx(np.divide(given, [*squashed.size, *squashed.size]))


def test_a_loaded_radiograph_is_as_stored_and_knows_how_to_be_turned():
    dataset = make_dataset(np.ascontiguousarray(chest()[::-1]), PatientOrientation=["L", "H"])
    with pytest.warns(UserWarning, match="upside down .*it is left so"):
        picture = load_radiograph(dataset)
    assert np.array_equal(np.asarray(picture), chest()[::-1])
    squashed = squash_radiograph(picture, [(240, 300)])  # as a program hands it on
    assert np.array_equal(np.asarray(squashed.pictures[240, 300]), chest())
    assert squashed.turn == picture.info["turn"] and squashed.warnings == tuple(picture.info["warnings"])


@pytest.mark.parametrize("orientation", [["L", "F"], ["L", "FP"], "", ["X", "Y"], ["L", "R"], ["L"]])
def test_an_orientation_that_is_the_standard_one_or_says_nothing_turns_nothing(orientation):
    squashed = squash_radiograph(make_dataset(chest(), PatientOrientation=orientation), [(240, 300)])
    assert np.array_equal(np.asarray(squashed.pictures[240, 300]), chest()) and squashed.turn is None


# --- Header and pixel data -------------------------------------------------------------------------------------------


def native(pixels: np.ndarray, bits: int, **tags) -> Dataset:
    return make_dataset(pixels, bits, **{**WINDOW, **tags})


def test_pixels_of_16_bits_beside_a_header_of_8():
    check(native(DEEP, 12, BitsAllocated=8, BitsStored=8, HighBit=7), "says 8 bits a pixel, its pixel data have 16")


def test_pixels_of_8_bits_beside_a_header_of_16():
    dataset = native(chest(), 8, BitsAllocated=16, BitsStored=12, HighBit=11)
    del dataset.WindowCenter
    check(dataset, "says 16 bits a pixel, its pixel data have 8", off=0)


def test_frames_that_the_header_does_not_count():
    eight = chest().tobytes() + chest()[::-1].tobytes()
    check(make_dataset(chest(), PixelData=eight), "pixel data of 2 frames, its header says 1", off=0)
    check(native(DEEP, 12, PixelData=DEEP.tobytes() * 3), "pixel data of 3 frames, its header says 1")


def test_pixel_data_longer_than_the_header_needs():
    check(native(DEEP, 12, PixelData=DEEP.tobytes() + bytes(1000)), "1000 bytes of pixel data more")


def test_pixel_data_shorter_than_the_header_needs_are_refused():
    for length in (DEEP.nbytes // 2, DEEP.nbytes - 2):
        with pytest.raises(RadiographError, match=f"cut short: {length} of {DEEP.nbytes}"):
            shown(native(DEEP, 12, PixelData=DEEP.tobytes()[:length]))


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "JPEG 2000", "JPEG-LS"])
def test_rows_and_columns_that_are_swapped(kind):
    if kind == "8 bits":
        dataset = make_dataset(chest())
    elif kind == "16 bits":
        dataset = native(DEEP, 12)
    elif kind == "JPEG 2000":
        stream = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", bitspersample=12, reversible=True)
        dataset = encapsulated(stream, DEEP, 12, uid.JPEG2000Lossless, **WINDOW)
    else:
        dataset = encapsulated(imagecodecs.jpegls_encode(DEEP), DEEP, 12, uid.JPEGLSLossless, **WINDOW)
    dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows
    check(dataset, "its Rows and Columns are swapped, it is read as 300 rows of 240")


def test_a_jpeg_2000_stream_deeper_than_bits_stored():
    stream = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", bitspersample=12, reversible=True)
    check(
        encapsulated(stream, DEEP, 10, uid.JPEG2000Lossless, **WINDOW),
        "BitsStored are 10, its JPEG 2000 stream has 12",
    )
    check(encapsulated(stream, DEEP, 12, uid.JPEG2000Lossless, **WINDOW), "")


def test_uncompressed_values_deeper_than_bits_stored():
    check(native(DEEP, 10), "BitsStored are 10, its values need 12")
    check(native(DEEP | np.uint16(0xA000), 12), "")  # junk above the stored bits
    noise = np.random.default_rng(0).integers(0, 16, DEEP.shape).astype(np.uint16) << 12
    check(native(DEEP | noise, 12), "")


@pytest.mark.parametrize("kind", ["JPEG 2000", "uncompressed"])
def test_values_that_are_called_signed_and_are_not(kind):
    dataset = native(DEEP, 12)
    if kind == "JPEG 2000":
        stream = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", bitspersample=12, reversible=True)
        dataset = encapsulated(stream, DEEP, 12, uid.JPEG2000Lossless, **WINDOW)
    dataset.PixelRepresentation = 1
    check(dataset, "PixelRepresentation says that its values are signed, which they are not")


def test_signed_values_are_signed():
    pixels = DEEP.astype(np.int16) - 2048
    check(make_dataset(pixels, 12, WindowCenter=0, WindowWidth=4096), "")


def test_compressed_pixel_data_that_are_not_called_so_and_the_reverse():
    stream = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", bitspersample=12, reversible=True)
    dataset = encapsulated(stream, DEEP, 12, uid.JPEG2000Lossless, **WINDOW)
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    check(dataset, "its pixel data are JPEG 2000")
    dataset = native(DEEP, 12)
    dataset.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    check(dataset, "its pixel data are not compressed, though its header says JPEG Lossless")


def test_grey_in_ycbcr_labelled_rgb():
    ycbcr = np.stack([chest(), np.full_like(chest(), 128), np.full_like(chest(), 128)], axis=-1)
    check(make_dataset(ycbcr), "its colours are YCbCr", off=0)
    stream = imagecodecs.jpeg8_encode(np.stack([chest()] * 3, axis=-1), level=95)
    assert stream[2:4] == b"\xff\xe0"  # JFIF, which says YCbCr; without it the label is believed
    stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
    dataset = encapsulated(stream, np.stack([chest()] * 3, axis=-1), 8, uid.JPEGBaseline8Bit)
    check(dataset, "its colours are YCbCr", off=2)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_called_that(kept):
    stream = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", bitspersample=12, reversible=True)
    data = to_bytes(encapsulated(stream, DEEP, 12, uid.JPEG2000Lossless, **WINDOW))
    with pytest.raises(RadiographError, match="cut short"):
        load_radiograph(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "keyword", ["PresentationLUTShape", "PixelIntensityRelationshipSign", "ViewCodeSequence", "ShutterShape"]
)
def test_what_no_picture_depends_on_refuses_none(keyword):
    dataset = make_dataset(chest())
    dataset[keyword] = RawDataElement(Tag(keyword), "US", 3, b"\xff\xfe\xfd", 0, False, True)
    found, _ = shown(dataset)
    assert np.array_equal(found, chest())


def test_a_refusal_names_no_patient(recwarn):
    dataset = make_dataset(chest())
    dataset.add_new("PresentationLUTShape", "LO", "DOE^JANE")
    dataset.add_new("BodyPartExamined", "LO", "DOE^JANE HAND")
    dataset["ViewCodeSequence"] = DataElement(Tag("ViewCodeSequence"), "SQ", code("DOE^JANE", "SCT", "DOE^JANE"))
    load_radiograph(BytesIO(to_bytes(dataset)))
    assert "DOE" not in "".join(str(warning.message) for warning in recwarn.list)
