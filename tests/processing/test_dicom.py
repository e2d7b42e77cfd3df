"""DICOM files are made in memory; expected greys are worked out by hand from PS3.3 C.11, or are pydicom's own."""

import json
import subprocess
import sys
import traceback
import warnings
import zlib
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
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from litegpt.processing import dicom
from litegpt.processing.dicom import RadiographError, dicom_to_radiograph
from litegpt.processing.radiograph import load_radiograph

ROOT = Path(__file__).parents[2]


def make_dataset(pixels, bits_stored=None, syntax=uid.ExplicitVRLittleEndian, **tags) -> Dataset:
    pixels = np.atleast_2d(pixels)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = "DOE^JANE"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def greys(source, windowing="dicom") -> list[int]:
    return np.asarray(load_radiograph(source, windowing)).ravel().tolist()


def lut_item(first: int, bits: int, values: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = values
    return item


# --- Windows, lookup tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "width", "values", "expected"),
    [
        # C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
        ("LINEAR", 11, [0, 94, 95, 99, 100, 104, 105, 9999], [0, 0, 13, 115, 140, 242, 255, 255]),
        ("LINEAR", 1, [98, 99, 100, 101], [0, 0, 255, 255]),
        # C.11.2.1.3.2: ((x - c) / w + 0.5) * 255
        ("LINEAR_EXACT", 10, [94, 95, 97, 99, 103, 105, 106], [0, 0, 51, 102, 204, 255, 255]),
        # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - c) / w))
        ("SIGMOID", 10, [0, 90, 100, 105, 110, 9999], [0, 5, 128, 225, 250, 255]),
    ],
)
def test_window_functions_give_the_greys_worked_out_by_hand(function, width, values, expected):
    tags = {"WindowCenter": 100, "WindowWidth": width, "VOILUTFunction": function}
    assert greys(make_dataset(np.uint16(values), **tags)) == expected


def test_without_voi_lut_function_the_window_is_linear_and_the_first_of_several_counts():
    dataset = make_dataset(np.uint16([94, 95, 105]), WindowCenter=[100, 5], WindowWidth=[11, 2])
    assert greys(dataset) == [0, 13, 255]


def test_monochrome1_is_inverted_after_the_window():
    tags = {"WindowCenter": 100, "WindowWidth": 11, "PhotometricInterpretation": "MONOCHROME1"}
    assert greys(make_dataset(np.uint16([0, 95, 9999]), **tags)) == [255, 242, 0]


def test_window_is_in_rescaled_units():
    # -1000 + 0.5 x: 1800, 2190 and 2220 become -100, 95 and 110
    tags = {"RescaleSlope": 0.5, "RescaleIntercept": -1000, "WindowCenter": 100, "WindowWidth": 11}
    assert greys(make_dataset(np.uint16([1800, 2190, 2220]), **tags)) == [0, 13, 255]


def test_modality_lut_maps_below_and_above_its_range_to_its_ends():
    tags = {"ModalityLUTSequence": [lut_item(10, 16, [0, 95, 5000])], "WindowCenter": 100, "WindowWidth": 11}
    assert greys(make_dataset(np.uint16([3, 10, 11, 12, 77]), **tags)) == [0, 0, 13, 255, 255]


def test_voi_lut_goes_before_the_window_and_scales_by_its_bits():
    tags = {"VOILUTSequence": [lut_item(10, 10, [0, 512, 1023])], "WindowCenter": 1, "WindowWidth": 1}
    assert greys(make_dataset(np.uint16([3, 10, 11, 12, 77]), **tags)) == [0, 0, 128, 255, 255]


def test_voi_lut_from_a_file_is_read_as_words():
    dataset = make_dataset(np.uint16([10, 11, 12]), VOILUTSequence=[lut_item(10, 12, [4095, 819, 0])])
    dataset.VOILUTSequence[0]["LUTData"].VR = "OW"
    dataset.VOILUTSequence[0].LUTData = np.uint16([4095, 819, 0]).tobytes()
    assert greys(to_bytes(dataset)) == [255, 51, 0]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_table_equals_pydicom_pixel_by_pixel(function, dtype):
    pixels = np.random.default_rng(0).integers(-2048 if dtype == np.int16 else 0, 2048, (40, 50)).astype(dtype)
    tags = {"WindowCenter": 333.3, "WindowWidth": 777.7, "VOILUTFunction": function}
    dataset = make_dataset(pixels, 12, RescaleSlope="1.7", RescaleIntercept="-50.5", **tags)
    values = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    low = (-2048 if dtype == np.int16 else 0) * 1.7 - 50.5
    expected = (values - low) / (4095 * 1.7) * 255
    assert abs(np.asarray(load_radiograph(dataset)) - expected).max() <= 0.5 + 1e-6


def test_paper_window_is_centre_plus_minus_width_and_truncates():
    values = np.uint16([0, 50, 125, 150, 9999])
    window = {"WindowCenter": 100, "WindowWidth": 50}
    assert greys(make_dataset(values, **window), "paper") == [0, 0, 191, 255, 255]
    inverse = make_dataset(values, PhotometricInterpretation="MONOCHROME1", **window)
    assert greys(inverse, "paper") == [255, 255, 63, 0, 0]


def test_paper_fallback_is_distance_from_the_mean_over_the_range():
    assert greys(make_dataset(np.uint16([0, 100, 200, 500])), "paper") == [76, 102, 127, 204]


def test_windowing_other_than_dicom_or_paper_is_refused():
    with pytest.raises(ValueError, match="'dicom' or 'paper'"):
        load_radiograph(np.zeros((2, 2), np.uint8), windowing="lung")


# --- No window, padding, bits ----------------------------------------------------------------------------------------


def test_without_window_the_range_of_the_pixels_fills_8_bits():
    assert greys(make_dataset(np.uint16([1000, 1500, 2000]), 12)) == [0, 128, 255]


def test_without_window_8_bit_pixels_stay_as_they_are():
    assert greys(make_dataset(np.uint8([50, 100, 200, 7]), PixelPaddingValue=7)) == [50, 100, 200, 7]


@pytest.mark.parametrize(("padding", "limit"), [(0, None), (4095, None), (4000, 4095)])
def test_padding_is_left_out_of_the_range(padding, limit):
    tags = {"PixelPaddingValue": padding} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    pixels = np.uint16([padding, 1000, 1500, 2000, padding if limit is None else limit])
    assert greys(make_dataset(pixels, 12, **tags))[1:4] == [0, 128, 255]


def test_signed_padding_is_left_out_of_the_range():
    assert greys(make_dataset(np.int16([-2000, -1000, 0, 1000]), PixelPaddingValue=-2000))[1:] == [0, 128, 255]


def test_signed_pixels_are_windowed_as_signed():
    tags = {"WindowCenter": -100, "WindowWidth": 11}
    assert greys(make_dataset(np.int16([-2000, -105, 5]), 12, **tags)) == [0, 13, 255]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_junk_in_bits_that_are_not_stored_changes_nothing(dtype):
    clean = np.array([-100, -5, 95, 1500] if dtype == np.int16 else [0, 95, 100, 3000]).astype(dtype)
    junk = ((clean.view(np.uint16) & 0x0FFF) | np.uint16(0xA000)).view(dtype)
    tags = {"WindowCenter": 50, "WindowWidth": 200}
    assert greys(make_dataset(junk, 12, **tags)) == greys(make_dataset(clean, 12, **tags))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("windowing", ["dicom", "paper"])
def test_constant_pixels_give_a_constant_picture_without_a_warning(photometric, windowing):
    dataset = make_dataset(np.full((4, 4), 700, np.uint16), 12, PhotometricInterpretation=photometric)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(set(greys(dataset, windowing))) == 1


@pytest.mark.parametrize("windowing", ["dicom", "paper"])
def test_window_without_width_is_left_out_with_a_warning(windowing):
    pixels = np.uint16([1000, 1500, 2000])
    with pytest.warns(UserWarning, match="WindowWidth is 0"):
        found = greys(make_dataset(pixels, 12, WindowCenter=1500, WindowWidth=0), windowing)
    assert found == greys(make_dataset(pixels, 12), windowing)


# --- Colour ----------------------------------------------------------------------------------------------------------


def test_grey_stored_as_rgb_or_ybr_comes_back_exactly():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert greys(make_dataset(np.stack([grey] * 3, axis=-1))) == grey.ravel().tolist()
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)
    assert greys(make_dataset(ybr, PhotometricInterpretation="YBR_FULL")) == grey.ravel().tolist()


def test_colour_of_8_bits_in_16_is_read():
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert greys(make_dataset(np.stack([grey] * 3, axis=-1), 8)) == grey.ravel().tolist()


def test_palette_colour_is_looked_up():
    palette = np.uint16([0, 51 * 257, 65535]).tobytes()
    tags = {f"{c}PaletteColorLookupTableDescriptor": [3, 10, 16] for c in ("Red", "Green", "Blue")}
    tags |= {f"{c}PaletteColorLookupTableData": palette for c in ("Red", "Green", "Blue")}
    dataset = make_dataset(np.uint8([0, 10, 11, 12, 200, 11]), PhotometricInterpretation="PALETTE COLOR", **tags)
    assert greys(dataset) == [0, 0, 51, 255, 255, 51]


# --- Transfer syntaxes and files -------------------------------------------------------------------------------------

RAMP = (np.add.outer(np.arange(40), np.arange(60)) * 40).astype(np.uint16)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}
ENCODED = {
    uid.JPEGLossless: lambda: imagecodecs.jpeg8_encode(RAMP, lossless=True, bitspersample=12),
    uid.JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(RAMP, lossless=True, bitspersample=12),
    uid.JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(RAMP, level=100, bitspersample=12),
    uid.JPEGLSLossless: lambda: imagecodecs.jpegls_encode(RAMP),
    uid.JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
        RAMP, codecformat="j2k", bitspersample=12, reversible=True
    ),
}


def encoded_dataset(syntax: uid.UID, stream: bytes | None = None) -> Dataset:
    dataset = make_dataset(RAMP, 12, syntax, **WINDOW)
    dataset.PixelData = encapsulate([stream or ENCODED[syntax]()])
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize("syntax", ENCODED, ids=lambda syntax: syntax.keyword)
def test_compressed_pixels_give_the_picture_of_the_uncompressed(syntax):
    expected = np.asarray(load_radiograph(make_dataset(RAMP, 12, **WINDOW)), int)
    found = np.asarray(load_radiograph(to_bytes(encoded_dataset(syntax))), int)
    assert abs(found - expected).max() <= (1 if syntax == uid.JPEGExtended12Bit else 0)


@pytest.mark.parametrize("syntax", ENCODED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("padded", [False, True])
def test_compressed_pixels_cut_short_are_refused(syntax, padded):
    stream = ENCODED[syntax]()
    cut = stream[: len(stream) // 2] + bytes(len(stream) // 2 if padded else 0)
    with pytest.raises(RadiographError, match="cut short"):
        load_radiograph(encoded_dataset(syntax, cut))


@pytest.mark.parametrize("syntax", ENCODED, ids=lambda syntax: syntax.keyword)
def test_stream_larger_than_its_header_is_refused_before_it_is_decoded(syntax, monkeypatch):
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", lambda _: pytest.fail("decoded"))
    size, bomb = {
        False: (b"\x00\x28\x00\x3c", b"\xff\xff\xff\xff"),
        True: (b"\0\0\0\x3c\0\0\0\x28", b"\0\0\xff\xff" * 2),
    }[syntax == uid.JPEG2000Lossless]
    stream = ENCODED[syntax]()
    assert size in stream[:300]
    with pytest.raises(RadiographError, match="another size"):
        load_radiograph(encoded_dataset(syntax, stream.replace(size, bomb, 1)))


@pytest.mark.parametrize("missing", [0, 1])
def test_rle_plane_that_is_too_short_is_refused(missing):
    """The decoder fills such a frame up with whatever memory held."""
    planes = [imagecodecs.packbits_encode(RAMP.astype("<u2").view("u1").ravel()[1 - plane :: 2]) for plane in (0, 1)]
    planes[missing] = imagecodecs.packbits_encode(bytes(RAMP.size // 2))
    planes = [plane + bytes(len(plane) % 2) for plane in planes]
    header = np.array([2, 64, 64 + len(planes[0]), *[0] * 13], "<u4").tobytes()
    with pytest.raises(RadiographError, match="cannot be decoded"):
        load_radiograph(encoded_dataset(uid.RLELossless, header + b"".join(planes)))


def test_without_imagecodecs_pydicoms_decoders_serve_and_what_they_cannot_decode_says_what_is_missing(monkeypatch):
    expected = greys(make_dataset(RAMP, 12, **WINDOW))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for syntax in (uid.JPEGLSLossless, uid.JPEG2000Lossless):
        assert greys(encoded_dataset(syntax)) == expected
    with pytest.raises(RadiographError, match="without the package imagecodecs"):
        load_radiograph(encoded_dataset(uid.JPEGLossless))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_file_without_preamble_and_meta_is_read(syntax):
    big = syntax == uid.ExplicitVRBigEndian
    dataset = make_dataset(RAMP.astype(">u2") if big else RAMP, 12, **WINDOW)
    del dataset.file_meta
    file = BytesIO()
    dataset.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=not big)
    assert file.getvalue()[128:132] != b"DICM"
    assert greys(file.getvalue()) == greys(make_dataset(RAMP, 12, **WINDOW))


def test_deflated_file_is_read_but_not_beyond_the_limit(monkeypatch):
    data = to_bytes(make_dataset(RAMP, 12, uid.DeflatedExplicitVRLittleEndian, **WINDOW))
    assert greys(data) == greys(make_dataset(RAMP, 12, **WINDOW))
    meta_end = 144 + int.from_bytes(data[140:144], "little")
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = data[:meta_end] + deflater.compress(bytes(1 << 21)) + deflater.flush()
    monkeypatch.setattr(dicom, "MAX_INFLATED_BYTES", 1 << 20)
    with pytest.raises(RadiographError, match="deflated data set is larger"):
        load_radiograph(bomb)


def test_content_not_suffix_says_what_a_file_is(tmp_path):
    Image.new("L", (3, 2), 70).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.dcm")
    (tmp_path / "radiograph.png").write_bytes(to_bytes(make_dataset(RAMP, 12, **WINDOW)))
    assert load_radiograph(tmp_path / "picture.dcm").size == (3, 2)
    assert load_radiograph(str(tmp_path / "radiograph.png")).size == (60, 40)


def test_bytes_file_object_and_dataset_give_the_picture_of_the_file(tmp_path):
    data = to_bytes(make_dataset(RAMP, 12, **WINDOW))
    (tmp_path / "radiograph").write_bytes(data)
    expected = greys(tmp_path / "radiograph")
    for source in (data, bytearray(data), BytesIO(data), pydicom.dcmread(BytesIO(data))):
        assert greys(source) == expected


# --- Refusals and warnings -------------------------------------------------------------------------------------------


def refusals() -> dict[str, tuple[Dataset, str]]:
    odd = {
        "ct": ({"Modality": "CT"}, "its modality is CT, not a radiograph's"),
        "mammogram": ({"Modality": "MG"}, "its modality is MG"),
        "bomb": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels"),
        "frames": ({"NumberOfFrames": 2**31 - 1}, "cut short"),
        "short": ({"PixelData": bytes(10)}, "cut short: 10 of 4800 bytes"),
        "none": ({"PixelData": b""}, "no pixel data"),
        "rows": ({"Rows": 0}, "no image"),
        "bits": ({"BitsStored": 20}, "BitsStored exceeds"),
        "high bit": ({"HighBit": 15}, "HighBit 15"),
        "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "without a palette"),
        "samples": ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel 1 does not fit RGB"),
        "hsv": ({"PhotometricInterpretation": "HSV"}, "HSV is not supported"),
        "slope": ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        "lut": ({"ModalityLUTSequence": [Dataset()]}, "ModalityLUTSequence is malformed"),
        "syntax": ({}, "transfer syntax is unknown"),
        "mpeg": ({}, "damaged or of another size"),
        "name as a number": ({}, "RescaleSlope is malformed"),
        "name as a code": ({}, r"PhotometricInterpretation \? is not supported"),
    }
    found = {key: (make_dataset(RAMP, 12, **tags), reason) for key, (tags, reason) in odd.items()}
    found["syntax"][0].file_meta.TransferSyntaxUID = uid.UID("1.2.3.4")
    found["mpeg"][0].file_meta.TransferSyntaxUID = uid.MPEG2MPML
    found["mpeg"][0].PixelData = encapsulate([b"\0\0\1\xb3" + RAMP.tobytes() + b"\xff\xd9"])
    found["name as a number"][0].add_new("RescaleSlope", "LO", "DOE^JANE")
    found["name as a code"][0].add_new("PhotometricInterpretation", "LO", "DOE^JANE")
    return found


@pytest.mark.parametrize("case", refusals())
def test_refusal_is_one_sentence_that_names_the_file_and_no_patient(case, caplog, recwarn):
    dataset, reason = refusals()[case]
    with pytest.raises(RadiographError, match=reason) as error:
        dicom_to_radiograph(dataset, name="a/radiograph.dcm")
    message = str(error.value)
    assert message.startswith("Cannot use a/radiograph.dcm: ") and message.endswith(".") and "\n" not in message
    told = "".join(traceback.format_exception(error.value)) + caplog.text + "".join(str(w.message) for w in recwarn)
    assert "DOE" not in told


def test_values_that_pydicom_would_quote_are_kept_out_of_warnings_and_the_log(caplog, recwarn):
    data = to_bytes(make_dataset(RAMP, 12, SpecificCharacterSet="ISO_IR 100")).replace(b"ISO_IR 100", b"DOE^JANE  ")
    caplog.set_level("WARNING", "pydicom")
    with pytest.warns(UserWarning, match="DOE"):
        pydicom.dcmread(BytesIO(data))
    assert "DOE" in caplog.text
    caplog.clear()
    assert load_radiograph(data).size == (60, 40)
    assert not caplog.records and not recwarn.list


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ViewPosition": "LL"}, "ViewPosition is LL"),
        ({"BodyPartExamined": "EXTREMITY"}, "BodyPartExamined is EXTREMITY"),
        ({"BurnedInAnnotation": "YES"}, "burned into its picture"),
    ],
)
def test_other_view_or_body_part_and_burned_in_text_are_warned_of_and_read(tags, message):
    with pytest.warns(UserWarning, match=f"the given dataset: .*{message}"):
        assert load_radiograph(make_dataset(RAMP, 12, **tags)).size == (60, 40)


@pytest.mark.parametrize(
    "tags", [{"Modality": "OT"}, {"Modality": ""}, {"BurnedInAnnotation": "NO"}, {"ViewPosition": "AP"}]
)
def test_what_a_chest_radiograph_may_say_is_not_warned_of(tags, recwarn):
    load_radiograph(make_dataset(RAMP, 12, **tags))
    assert not recwarn.list


def test_first_of_several_frames_is_used_with_a_warning():
    frames = np.stack([RAMP, RAMP[::-1]])
    dataset = make_dataset(RAMP, 12, NumberOfFrames=2, PixelData=frames.tobytes(), **WINDOW)
    with pytest.warns(UserWarning, match="2 frames, the first"):
        assert greys(dataset) == greys(make_dataset(RAMP, 12, **WINDOW))


# --- Real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding",
    "explicit_le implicit_le rle j2k_lossless monochrome2 multi_window rescale 12bit jpeg_baseline_8bit".split(),
)
def test_encodings_of_one_radiograph_match_the_reference(real_cxr, encoding):
    folder = real_cxr / "real_cxr" / "dicom_derived"
    expected = np.asarray(Image.open(folder / "derived_reference.png").convert("L"), int)
    difference = abs(np.asarray(load_radiograph(folder / f"rg1s_{encoding}.dcm"), int) - expected)
    lossy = encoding == "jpeg_baseline_8bit"  # measured: at most 6, 0.58 on average
    assert difference.max() <= (8 if lossy else 2)
    assert difference.mean() <= (1 if lossy else 0.1)


def test_radiograph_without_window_shows_the_same_anatomy(real_cxr):
    folder = real_cxr / "real_cxr" / "dicom_derived"
    expected = np.asarray(Image.open(folder / "derived_reference.png").convert("L"))
    found = np.asarray(load_radiograph(folder / "rg1s_no_window.dcm"))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize(("file", "size"), [("RG1_J2KI.dcm", (1841, 1955)), ("nih_00000001_000.dcm", (1024, 1024))])
def test_real_chest_radiographs_are_read(real_cxr, file, size, recwarn):
    radiograph = load_radiograph(real_cxr / "real_cxr" / "dicom_cxr" / file)
    assert (radiograph.mode, radiograph.size) == ("L", size)
    assert np.asarray(radiograph).std() > 20
    assert not recwarn.list


READ_EVERY_FILE = """
import json, resource, sys, warnings
from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
outcomes = {}
for file in sys.argv[1:]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            radiograph = load_radiograph(file)
            outcome = [f"{radiograph.mode} {radiograph.width}x{radiograph.height}"]
        except RadiographError as error:
            outcome = [str(error)]
    outcomes[file] = outcome + [str(warning.message) for warning in caught]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([outcomes, int(status["VmHWM"].split()[0]) / 1024]))  # ru_maxrss would begin with its parent's
"""
# Everything else in the two folders must be refused.
READABLE = {
    "RG3_J2KR.dcm": [
        "L 1760x1760",
        "BodyPartExamined is EXTREMITY",
        "mirrored (PatientOrientation R/F)",
        "not look like",
    ],
    "SC_rgb_small_odd_jpeg.dcm": ["L 3x3"],
    "mlut_18.dcm": ["L 512x512", "does not look like"],
    "odd_constant_pixels.dcm": ["L 460x488", "shows next to nothing"],
    "odd_rgb_samples.dcm": ["L 256x256"],
    "odd_two_frames.dcm": ["L 256x256", "2 frames"],
    "odd_view_lateral_tag.dcm": ["L 256x256", "ViewPosition is LL"],
    "odd_window_width_zero.dcm": ["L 460x488", "WindowWidth is 0"],
    "ras_1bit.png": ["L 256x256", "shows next to nothing"],
    "ras_animated.gif": ["L 256x256", "several frames"],
    "ras_cmyk.jpg": ["L 256x256"],
    "ras_wide_4000x12.png": ["L 4000x12"],
}


def test_every_odd_real_file_is_read_or_refused_in_one_sentence(real_cxr):
    files = [
        str(f) for folder in ("dicom_odd", "raster_odd") for f in sorted((real_cxr / "real_cxr" / folder).iterdir())
    ]
    command = [sys.executable, "-c", READ_EVERY_FILE, *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    outcomes, peak_mb = json.loads(run.stdout)
    assert peak_mb < 1500
    assert {Path(file).name for file, found in outcomes.items() if found[0].startswith("L ")} == set(READABLE)
    for file, (outcome, *warned) in outcomes.items():
        expected = READABLE.get(Path(file).name, [f"Cannot use {file}: "])
        assert outcome.startswith(expected[0])
        assert len(warned) == len(expected) - 1
        assert all(part in message for part, message in zip(expected[1:], warned, strict=True))
