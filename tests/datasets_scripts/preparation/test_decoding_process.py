import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from litegpt.datasets_scripts.preparation import decoding_process
from litegpt.datasets_scripts.preparation.decoding_process import DecodingProcess, decode, read_view, shrink
from litegpt.datasets_scripts.preparation.splits import perceptual_hash, pixel_hash
from litegpt.processing.dicom import RadiographError

# A child in which reading a file called crash.png and the like does what a bad codec might.
BAD_CODECS = """
import ctypes, os, sys, time, warnings
import numpy as np
from litegpt.datasets_scripts.preparation import decoding_process
from litegpt.processing.radiograph import load_radiograph

def load(path, windowing):
    name = os.path.basename(path)
    if name == "crash.png":
        ctypes.string_at(0)
    if name == "hang.png":
        time.sleep(60)
    if name == "memory.png":
        np.ones(decoding_process.MEMORY_LIMIT, dtype=np.uint8)
    if name == "talk.png":
        os.write(1, b"a codec says something" * 1000)
        print("so does Python", flush=True)
        warnings.warn("PatientName is Nobody")
        warnings.warn(f"{path}: ours")
    if name == "bug.png":
        raise KeyError("PatientName is Nobody")
    if name == "exit.png":
        os._exit(3)
    return load_radiograph(path, windowing)

decoding_process.load_radiograph = load
decoding_process.main(*sys.argv[1:])
"""


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 100), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def bad_codecs(monkeypatch, tmp_path, picture):
    """Gives a picture the name of what happens when it is read."""
    monkeypatch.setattr(decoding_process, "COMMAND", (sys.executable, "-c", BAD_CODECS))

    def file(name):
        (tmp_path / name).symlink_to(picture)
        return str(tmp_path / name)

    return file


def after(seconds, function, *arguments):
    timer = threading.Timer(seconds, function, arguments)
    timer.start()
    return timer


# What is read


def test_a_child_reads_what_this_process_would_read(picture):
    with DecodingProcess("dicom", shortest_edge=30) as decoder:
        decoded = decoder.read(picture)
    assert asdict(decoded) == asdict(decode(str(picture), "dicom", 30))
    assert (decoded.width, decoded.height, decoded.view, decoded.warnings) == (100, 60, "", ())
    assert (decoded.sex, decoded.age) == ("", None)
    stored = Image.open(BytesIO(decoded.png))
    assert decoded.pixel_hash == pixel_hash(stored) and decoded.perceptual_hash == perceptual_hash(stored)
    assert stored.mode == "L" and stored.size == (50, 30)


def test_a_relative_path_is_one_of_the_callers_folder(picture, monkeypatch):
    monkeypatch.chdir(picture.parent)
    with DecodingProcess("dicom", None) as decoder:
        assert decoder.read("picture.png").width == 100
        with pytest.raises(RadiographError, match=r"^Cannot use missing\.png: there is no such file\.$"):
            decoder.read("missing.png")


@pytest.mark.parametrize(
    "size, shortest_edge, stored",
    [((100, 60), 30, (50, 30)), ((60, 100), 30, (30, 50)), ((100, 60), 60, (100, 60)), ((100, 60), None, (100, 60))],
)
def test_the_shorter_side_is_scaled_down_and_never_up(size, shortest_edge, stored):
    assert shrink(Image.new("L", size), shortest_edge).size == stored


def test_an_image_is_scaled_down_with_all_its_pixels():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255  # dropping every other column would make it black or white
    assert abs(np.asarray(shrink(Image.fromarray(stripes), 64)).astype(int) - 127).max() <= 8


@pytest.mark.parametrize("view, expected", [("PA", "PA"), (None, ""), ("hospital of x", "")])
def test_the_view_comes_from_a_valid_view_position_only(tmp_path, view, expected):
    import pydicom

    path = tmp_path / "a.dicom"
    with pydicom.config.disable_value_validation():
        dataset = pydicom.Dataset()
        dataset.PatientName = "Nobody"
        if view is not None:
            dataset.ViewPosition = view
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    assert read_view(str(path)) == expected


def test_the_view_of_a_dicom_file_does_not_depend_on_its_suffix(tmp_path):
    from litegpt.datasets_scripts.phantom_cxr import encode_dicom

    pixels = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    dataset = encode_dicom(pixels, "0" * 32, np.random.default_rng(0))
    dataset.save_as(tmp_path / "radiograph", enforce_file_format=True)
    assert read_view(str(tmp_path / "radiograph")) == "PA"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientSex": "F", "PatientAge": "058Y"}, ("F", 58)),
        ({"PatientSex": "O", "PatientAge": "000Y"}, ("", None)),
        ({"PatientSex": "Nobody", "PatientAge": "238Y"}, ("", None)),
        ({"PatientSex": "", "PatientAge": ""}, ("", None)),
        ({}, ("", None)),
    ],
)
def test_sex_and_age_of_a_dicom_file_are_values_that_can_be_or_unknown(tmp_path, tags, expected):
    import pydicom

    from litegpt.datasets_scripts.phantom_cxr import encode_dicom

    dataset = encode_dicom(np.linspace(0, 1, 64 * 64).reshape(64, 64), "0" * 32, np.random.default_rng(0))
    del dataset.PatientSex, dataset.PatientAge
    with pydicom.config.disable_value_validation():
        dataset.update(tags)
        dataset.save_as(tmp_path / "a.dicom", enforce_file_format=True)
    with DecodingProcess("dicom", None) as decoder:
        decoded = decoder.read(tmp_path / "a.dicom")
    assert (decoded.sex, decoded.age) == expected and decoded.view == "PA"


# What goes wrong


def test_a_refused_file_is_named_and_the_child_reads_on(picture, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with DecodingProcess("dicom", None) as decoder:
        with pytest.raises(RadiographError, match="bad.png: it is neither a DICOM file nor a picture"):
            decoder.read(bad)
        first = decoder._child.pid
        assert decoder.read(picture).width == 100 and decoder._child.pid == first


def test_a_codec_that_fails_costs_one_file_and_tells_no_tag(bad_codecs):
    reasons = {
        "crash.png": "its decoder crashed (signal 11)",
        "exit.png": "its decoder ended the process (status 3)",
        "memory.png": "reading it needs more than 3 GiB of memory",
        "bug.png": "reading it failed (KeyError)",
    }
    good = bad_codecs("good.png")
    with DecodingProcess("dicom", None) as decoder:
        for name, reason in reasons.items():
            path = bad_codecs(name)
            with pytest.raises(RadiographError) as error:
                decoder.read(path)
            assert str(error.value) == f"Cannot use {path}: {reason}."
            assert decoder.read(good).width == 100


def test_a_codec_that_prints_does_not_break_the_replies_and_only_our_warnings_come_back(bad_codecs):
    with DecodingProcess("dicom", None) as decoder:
        assert decoder.read(bad_codecs("talk.png")).warnings == ("ours",)
        assert decoder.read(bad_codecs("good.png")).warnings == ()


def test_warnings_come_back_from_a_file_with_a_long_path(tmp_path):
    folder = tmp_path / ("folder" * 20)
    folder.mkdir()
    Image.new("L", (100, 100)).save(folder / "black.png")
    with DecodingProcess("dicom", None) as decoder:
        assert decoder.read(folder / "black.png").warnings == (
            "it shows next to nothing: 100 % of it is black or white",
        )


def test_a_codec_that_hangs_costs_one_file_and_the_timeout(bad_codecs):
    with DecodingProcess("dicom", None, timeout_s=0.5) as decoder:
        decoder.read(bad_codecs("good.png"))
        start = time.monotonic()
        with pytest.raises(RadiographError, match=r"hang\.png: reading it took longer than 0\.5 s"):
            decoder.read(bad_codecs("hang.png"))
        assert time.monotonic() - start < 5
        assert decoder.read(bad_codecs("next.png")).width == 100


def test_a_child_that_is_killed_or_stopped_from_outside_costs_one_file(picture):
    with DecodingProcess("dicom", None, timeout_s=1) as decoder:
        decoder.read(picture)
        for end, reason in ((signal.SIGSEGV, "signal 11"), (signal.SIGKILL, "signal 9"), (None, "longer than 1 s")):
            child = decoder._child.pid
            os.kill(child, signal.SIGSTOP)  # so that it is still reading
            timer = after(0.1, os.kill, child, end) if end else None
            wake = after(0.2, os.kill, child, signal.SIGCONT) if end == signal.SIGSEGV else None
            with pytest.raises(RadiographError, match=reason):
                decoder.read(picture)
            for thread in filter(None, (timer, wake)):
                thread.join()
            assert decoder.read(picture).width == 100 and decoder._child.pid != child


def test_a_child_that_died_between_two_files_costs_none(picture):
    with DecodingProcess("dicom", None) as decoder:
        decoder.read(picture)
        decoder._child.kill()
        decoder._child.wait()
        assert decoder.read(picture).width == 100


def test_a_child_that_does_not_start_is_no_fault_of_the_file(picture, monkeypatch):
    monkeypatch.setattr(decoding_process, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    with DecodingProcess("dicom", None) as decoder, pytest.raises(ChildProcessError, match="ended with status 7"):
        decoder.read(picture)


# How it ends


def test_another_thread_can_end_a_read_at_once_and_for_good(picture):
    with DecodingProcess("dicom", None) as decoder:
        decoder.read(picture)
        os.kill(decoder._child.pid, signal.SIGSTOP)
        timer = after(0.2, decoder.interrupt)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="interrupted"):
                decoder.read(picture)
        timer.join()
        assert decoder._child is None


def test_the_child_ends_with_the_block(picture):
    with DecodingProcess("dicom", None) as decoder:
        decoder.read(picture)
        child = decoder._child
    assert child.poll() is not None and child.stdin.closed and child.stdout.closed


def test_the_child_ends_when_its_parent_is_killed(picture):
    program = (
        "import sys, time\n"
        "from litegpt.datasets_scripts.preparation.decoding_process import DecodingProcess\n"
        "decoder = DecodingProcess('dicom', None)\n"
        "decoder.read(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(picture)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        # The child has the same standard error, which ends only when both are gone.
        assert parent.communicate(timeout=10)[1] == b""


def test_the_child_imports_nothing_heavy():
    program = "import sys, litegpt.datasets_scripts.preparation.decoding_process; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "PIL.Image" in modules
    assert not {"torch", "transformers", "datasets", "pyarrow", "pandas"} & set(modules)
