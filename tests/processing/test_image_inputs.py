"""Radiographs as people and libraries hand them over: each gives its right tensors, or one sentence says why not."""

import base64
import pickle
import subprocess
import sys
from dataclasses import replace
from email.message import Message
from io import BytesIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import numpy as np
import pydicom
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from datasets.fingerprint import Hasher
from PIL import Image
from transformers import CLIPImageProcessorPil
from trl import GRPOConfig, GRPOTrainer

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.modeling_litegpt.new_checkpoint import main as new_checkpoint
from litegpt.processing import image_sources
from litegpt.processing.dicom import RadiographError
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.radiograph import load_radiograph
from tests.small_dicom import small_dicom

GREYS = np.random.default_rng(0).integers(0, 256, (48, 56), dtype=np.uint8)
PICTURE = Image.fromarray(GREYS)


def png(picture: Image.Image = PICTURE, format: str = "PNG") -> bytes:
    file = BytesIO()
    picture.save(file, format)
    return file.getvalue()


def dicom() -> bytes:
    file = BytesIO()
    small_dicom(GREYS).save_as(file, enforce_file_format=True)
    return file.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def processor(tiny_checkpoint) -> LiteGPTProcessor:
    return load_checkpoint(tiny_checkpoint)[1]


@pytest.fixture(scope="module")
def ordinary(processor) -> dict[str, torch.Tensor]:
    """The tensors of PICTURE."""
    return processor(images=PICTURE, text="<image>", return_tensors="pt")


def assert_is_ordinary(processor, images, ordinary, count: int = 1, **options) -> None:
    batch = processor(images=images, text=["<image>"] * count, return_tensors="pt", **options)
    for name in ("pixel_values", "aux_pixel_values"):
        assert torch.equal(batch[name], ordinary[name].expand(count, -1, -1, -1)), name


# --- Options with a call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", [GREYS / 255, torch.tensor(GREYS / 255).expand(3, -1, -1)], ids=["array", "tensor with channels first"]
)
def test_floats_that_are_rescaled_already_are_not_rescaled_again(processor, ordinary, image):
    assert_is_ordinary(processor, image, ordinary, do_rescale=False)
    assert_is_ordinary(processor, [image, image], ordinary, 2, images_kwargs={"do_rescale": False})


@pytest.mark.parametrize("image", [PICTURE, GREYS, torch.tensor(GREYS), png()], ids=["PIL", "array", "tensor", "PNG"])
def test_grey_levels_never_reach_the_towers_without_rescaling(processor, image):
    with pytest.raises(ValueError, match=r"do_rescale=False is for arrays of floats .*image 2 of 2"):
        processor(images=[GREYS / 255, image], text="<image> <image>", return_tensors="pt", do_rescale=False)


@pytest.mark.parametrize(
    "options",
    [
        {"do_normalize": False},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"size": {"height": 32, "width": 48}},
        {"resample": Image.Resampling.NEAREST},
        {"do_resize": False},
        {"size": {"shortest_edge": 40}},
        {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        {"do_resize": True, "do_rescale": True, "do_convert_rgb": True, "input_data_format": "channels_first"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_with_a_call_do_what_the_librarys_image_processor_does(processor, options):
    channels_first = np.stack([GREYS] * 3)
    batch = processor(images=channels_first, text="<image>", return_tensors="pt", **options)
    for name, parts in zip(("pixel_values", "aux_pixel_values"), processor.tower_image_processors, strict=True):
        with_pillow = CLIPImageProcessorPil.from_dict(parts.to_dict())
        expected = with_pillow(channels_first, return_tensors="pt", **options)["pixel_values"]
        torch.testing.assert_close(batch[name], expected, atol=1e-6, rtol=0)


def test_a_squashed_radiograph_is_refused_where_it_would_be_squashed_anew(processor, ordinary):
    squashed = processor.squash(PICTURE)
    plain = processor(images=squashed, text="<image>", return_tensors="pt", do_normalize=False)["pixel_values"]
    again = processor(images=PICTURE, text="<image>", return_tensors="pt", do_normalize=False)["pixel_values"]
    assert torch.equal(plain, again)
    for options in ({"size": {"height": 32, "width": 32}}, {"do_resize": False}, {"resample": 0}):
        with pytest.raises(ValueError, match="give the radiograph that it is of"):
            processor(images=squashed, text="<image>", return_tensors="pt", **options)


# --- As many images as the prompts ask about -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images", [None, [], [[]], (), [[], []], iter(()), np.zeros((0, 3, 8, 8)), [None, []]], ids=str
)
def test_no_image_is_no_image_however_it_is_written(processor, images):
    with pytest.raises(ValueError, match="<image>.* but "):
        processor(images=images, text="<image> [vqa] Which?", return_tensors="pt")


@pytest.mark.parametrize("images", [None, [], [[]]], ids=str)
def test_a_task_is_not_asked_of_no_radiograph(processor, images):
    with pytest.raises(ValueError, match=r"no <image> in prompt 1 of 1, which asks \[vqa\]"):
        processor(images=images, text="[vqa] Which?", return_tensors="pt")
    with pytest.raises(ValueError, match=r"no <image> in prompt 2 of 2, which asks \[identify\]"):
        processor(images=[PICTURE], text=["<image> [vqa] Which?", "[identify] Where?"], return_tensors="pt")
    inputs = processor(images=images, text="Good morning.", return_tensors="pt")
    assert "pixel_values" not in inputs and inputs["input_ids"].shape[1] > 1


@pytest.mark.parametrize("text", [[1, 2], [["<image>"]], [None]], ids=str)
def test_text_that_is_none_is_refused(processor, text):
    with pytest.raises(ValueError, match="string or list of strings"):
        processor(images=PICTURE, text=text, return_tensors="pt")


def test_neither_image_nor_text_is_an_error(processor):
    for images in (None, [], [[]]):
        with pytest.raises(ValueError, match="at least one input"):
            processor(images=images)


def test_a_chat_whose_image_item_has_no_image_is_refused(processor):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "[vqa] Which?"}]}]
    with pytest.raises(ValueError, match="<image>"):
        processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")


def test_lists_for_each_prompt_are_held_against_the_images_of_each(processor, ordinary):
    texts = ["<image> <image> [vqa] Which?", "<image> [vqa] Which?"]
    with pytest.raises(ValueError, match="stands 2 times in prompt 1 of 2, which has 1 images"):
        processor(images=[[PICTURE], [PICTURE, PICTURE]], text=texts, padding=True, return_tensors="pt")
    batch = processor(images=[[PICTURE, PICTURE], [PICTURE]], text=texts, padding=True, return_tensors="pt")
    assert batch["pixel_values"].shape[0] == 3
    for nothing in (None, []):
        batch = processor(images=[nothing, [PICTURE]], text=["Hello.", "<image>"], padding=True, return_tensors="pt")
        assert torch.equal(batch["pixel_values"], ordinary["pixel_values"])


def test_a_missing_image_among_images_is_refused(processor):
    with pytest.raises(TypeError, match="not NoneType"):
        processor(images=[PICTURE, None], text="<image> <image>", return_tensors="pt")


# --- Base64 and data URLs --------------------------------------------------------------------------------------------

FILES = {"PNG": (png(), "image/png"), "DICOM": (dicom(), "application/dicom"), "BMP": (png(format="BMP"), "image/bmp")}


@pytest.mark.parametrize("file", FILES)
def test_a_file_in_base64_is_read(processor, ordinary, file):
    data, media_type = FILES[file]
    text = in_base64(data)
    assert_is_ordinary(processor, f"data:{media_type};base64,{text}", ordinary)
    assert_is_ordinary(processor, f"data:{media_type};base64,{quote(text, safe='')}", ordinary)
    assert_is_ordinary(processor, f"data:{media_type},{quote(data)}", ordinary)
    assert_is_ordinary(processor, text, ordinary)
    assert_is_ordinary(processor, base64.encodebytes(data).decode(), ordinary)  # in lines
    assert_is_ordinary(processor, base64.urlsafe_b64encode(data).decode().rstrip("="), ordinary)
    assert processor.squash(text).size == (56, 48)


def test_a_jpeg_in_base64_is_read_though_it_begins_like_a_path(processor):
    data = png(format="JPEG")
    text = in_base64(data)
    assert text.startswith("/")
    assert load_radiograph(text) == load_radiograph(data) == load_radiograph("data:image/jpeg;base64," + text)


def test_a_small_picture_in_base64_is_read():
    assert load_radiograph(in_base64(png(Image.new("L", (1, 1), 7)))).getpixel((0, 0)) == 7


@pytest.mark.parametrize("key", ["image", "base64"])
def test_a_chat_takes_base64(processor, ordinary, key):
    for data in (png(), dicom()):
        content = [{"type": "image", key: in_base64(data)}, {"type": "text", "text": "[vqa] Which?"}]
        chat = [{"role": "user", "content": content}]
        batch = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
        assert torch.equal(batch["pixel_values"], ordinary["pixel_values"])


NOISE = np.random.default_rng(1).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    "source",
    [
        in_base64(NOISE),
        in_base64(NOISE) + ".",
        "no\nsuch\n" * 1000,
        "data:image/png;base64," + in_base64(NOISE),
        "data:image/png;base64," + in_base64(png())[:200],
        "data:image/png;base64," + in_base64(png())[:201],
        "data:image/png;base64,",
        "data:image/png",
        in_base64(png())[:800],
        "https+" + "a" * 100_000 + "://b",
        "file://elsewhere/" + "a" * 100_000,
        "/" + "long/" * 1000,
        {"bytes": None, "path": "a" * 100_000 + "?"},
        {"bytes": b"no picture", "path": "a" * 100_000},
        "",
    ],
    ids=range(15),
)
def test_a_string_that_is_no_radiograph_is_refused_in_one_short_line(processor, source):
    with pytest.raises(RadiographError) as error:
        processor(images=source, text="<image>", return_tensors="pt")
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_a_warning_does_not_carry_a_payload():
    frames = BytesIO()
    PICTURE.save(frames, "GIF", save_all=True, append_images=[Image.new("L", (56, 48))])
    with pytest.warns(UserWarning, match="several frames") as caught:
        load_radiograph({"bytes": frames.getvalue(), "path": "a" * 100_000})
    assert len(str(caught[0].message)) < 250


def test_the_name_of_a_long_path_keeps_its_end():
    with pytest.raises(RadiographError, match=r"Cannot use /data/.*\.\.\..*/radiograph\.dcm: there is no such file"):
        load_radiograph("/data/" + "folder/" * 30 + "radiograph.dcm")


# --- Arrays and tensors ----------------------------------------------------------------------------------------------

UNIT = torch.tensor(GREYS / 255)
TENSORS = {
    "(h, w) bytes": torch.tensor(GREYS),
    "(1, h, w) bytes": torch.tensor(GREYS)[None],
    "(3, h, w) bytes": torch.tensor(GREYS).expand(3, -1, -1),
    "(h, w, 3) bytes": torch.tensor(GREYS)[..., None].expand(-1, -1, 3),
    "(1, h, w) float64": UNIT[None],
    "(3, h, w) float32": UNIT.float().expand(3, -1, -1),
    "(3, h, w) float16": UNIT.half().expand(3, -1, -1),
    "with a gradient": UNIT.float()[None].requires_grad_(),
    "uint16": torch.tensor(GREYS.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_and_arrays_are_taken_with_channels_first_or_last(processor, ordinary, kind):
    tensor = TENSORS[kind]
    assert_is_ordinary(processor, tensor, ordinary)
    assert_is_ordinary(processor, tensor.detach().numpy(), ordinary)
    if tensor.ndim == 3:
        assert_is_ordinary(processor, torch.stack([tensor, tensor]), ordinary, 2)
        assert_is_ordinary(processor, np.stack([tensor.detach().numpy()] * 2), ordinary, 2)
        assert_is_ordinary(processor, [tensor[None], tensor], ordinary, 2)


def test_bfloat16_is_the_nearest_grey(processor):
    levels = torch.arange(256) / 255
    expected = (levels.bfloat16().double() * 255).round().tolist()
    assert list(load_radiograph(image_sources.as_source(levels.bfloat16()[None])).tobytes()) == expected
    assert list(load_radiograph((levels.numpy()[None]).astype(np.float16)).tobytes()) == list(range(256))


def test_a_batch_of_batches_is_as_many_images_as_it_has(processor, ordinary):
    assert_is_ordinary(processor, np.tile(GREYS, (2, 3, 1, 1, 1)), ordinary, 6)


def test_colour_with_channels_first_is_the_same_luminance():
    colours = np.random.default_rng(2).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    for channels in (1, 3, 4):
        last = colours[..., :channels]
        assert load_radiograph(last) == load_radiograph(last.transpose(2, 0, 1))


def test_where_both_ends_could_be_channels_the_last_axis_is():
    values = np.arange(9, dtype=np.uint8).reshape(1, 3, 3) * 20
    assert load_radiograph(values).size == (3, 1)


# --- Lists, generators, columns --------------------------------------------------------------------------------------


def test_images_come_in_any_sequence(processor, ordinary, tmp_path):
    objects = np.empty(2, object)
    objects[:] = [PICTURE, GREYS]
    (tmp_path / "a.png").write_bytes(png())
    path = tmp_path / "a.png"
    for images in (
        (PICTURE, GREYS),
        (image for image in (PICTURE, GREYS)),
        map(Image.fromarray, [GREYS, GREYS]),
        objects,
        np.array([str(path), str(path)]),
        [[PICTURE], [[GREYS]]],
        [(PICTURE, GREYS)],
        {0: PICTURE, 1: GREYS}.values(),
        [path, BytesIO(png())],
        [path.open("rb"), memoryview(png())],
        [path.as_uri(), path.as_uri().replace("file://", "FILE://localhost")],
        [bytearray(dicom()), pydicom.dcmread(BytesIO(dicom()))],
    ):
        assert_is_ordinary(processor, images, ordinary, 2)


@pytest.mark.parametrize("decode", [True, False])
def test_columns_of_a_data_set_are_images(processor, ordinary, tmp_path, decode):
    (tmp_path / "a b.png").write_bytes(png())
    features = Features({"image": ImageFeature(decode=decode)})
    dataset = Dataset.from_dict({"image": [str(tmp_path / "a b.png")] * 2}, features)
    assert_is_ordinary(processor, dataset["image"], ordinary, 2)
    assert_is_ordinary(processor, dataset[:]["image"], ordinary, 2)
    assert_is_ordinary(processor, dataset[0]["image"], ordinary)
    embedded = Dataset.from_dict({"image": [PICTURE]}, Features({"image": ImageFeature()}))
    assert_is_ordinary(processor, embedded.cast_column("image", ImageFeature(decode=decode))["image"], ordinary)


def test_a_dictionary_has_bytes_or_a_path(processor, ordinary):
    assert_is_ordinary(processor, {"bytes": dicom(), "path": None}, ordinary)
    assert_is_ordinary(processor, {"bytes": png(), "path": "inside.zip"}, ordinary)
    with pytest.raises(RadiographError, match="neither bytes nor a path"):
        load_radiograph({"bytes": None, "path": None})
    with pytest.raises(RadiographError, match="a.png: there is no such file"):
        load_radiograph({"bytes": None, "path": "a.png"})
    with pytest.raises(TypeError, match="'bytes' and 'path' only"):
        load_radiograph({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}})


# --- URLs ------------------------------------------------------------------------------------------------------------


def test_a_file_url_is_its_path(tmp_path):
    path = tmp_path / "Röntgen 1 #2?.png"
    path.write_bytes(png())
    assert load_radiograph(path.as_uri()) == PICTURE
    with pytest.raises(RadiographError, match="another machine"):
        load_radiograph("file://host/radiograph.png")
    with pytest.raises(RadiographError, match="no such file"):
        load_radiograph((tmp_path / "none.png").as_uri())


@pytest.mark.parametrize("data", [png(), dicom()], ids=["PNG", "DICOM"])
def test_a_radiograph_behind_a_url_is_downloaded(processor, ordinary, monkeypatch, data):
    asked = []

    def urlopen(request, timeout):
        asked.append((request.full_url, timeout))
        return BytesIO(data)

    monkeypatch.setattr(image_sources, "urlopen", urlopen)
    assert_is_ordinary(processor, ["https://example.org/a?b=c", "HTTP://example.org/a"], ordinary, 2)
    assert [url for url, _ in asked] == ["https://example.org/a?b=c", "HTTP://example.org/a"]
    assert all(timeout for _, timeout in asked)


def test_what_is_behind_a_url_is_named_by_it_where_it_is_no_radiograph(processor, monkeypatch):
    monkeypatch.setattr(image_sources, "urlopen", lambda request, timeout: BytesIO(b"<html>Sign in</html>"))
    with pytest.raises(RadiographError, match="https://example.org/a: it is neither a DICOM file nor a picture"):
        processor.squash("https://example.org/a")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HTTPError("https://example.org/a", 404, "Not Found", Message(), None), "its server answers 404"),
        (URLError(TimeoutError()), "URLError"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("unknown url"), "ValueError"),
    ],
)
def test_a_url_that_cannot_be_downloaded_is_an_error_in_one_sentence(processor, monkeypatch, error, reason):
    def urlopen(request, timeout):
        raise error

    monkeypatch.setattr(image_sources, "urlopen", urlopen)
    with pytest.raises(RadiographError, match=rf"Cannot use https://example.org/a: .*{reason}\)"):
        processor.squash("https://example.org/a")


# --- datasets.map caches ---------------------------------------------------------------------------------------------

MAPPING = """
import sys
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
if len(sys.argv) > 2:
    processor.windowing = sys.argv[2]


def tokenize(row):
    return {"ids": processor(text=row["text"])["input_ids"][0]}


fingerprint = Dataset.from_dict({"text": ["Hello."]}).map(tokenize)._fingerprint
print(Hasher.hash(processor), fingerprint)
"""


@pytest.mark.slow
def test_two_processes_give_the_processor_of_a_checkpoint_one_fingerprint(tiny_checkpoint, tmp_path):
    (tmp_path / "mapping.py").write_text(MAPPING)

    def fingerprints(*options: str) -> list[str]:
        command = [sys.executable, str(tmp_path / "mapping.py"), str(tiny_checkpoint), *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    first, again, changed = fingerprints(), fingerprints(), fingerprints("paper")
    assert first == again and len(first) == 2
    assert not set(first) & set(changed)


def test_a_processor_has_one_hash_before_and_after_it_was_used_and_another_with_other_options(processor):
    before = Hasher.hash(processor)
    processor.answer_grammar  # noqa: B018
    processor(images=[PICTURE] * 2, text=["<image>", "<image> Hello."], padding=True, return_tensors="pt")
    processor(text="Good morning.", truncation=True, max_length=2)
    assert Hasher.hash(processor) == before
    again = pickle.loads(pickle.dumps(processor))
    assert Hasher.hash(again) == before
    again.image_processor.do_normalize = False
    assert Hasher.hash(again) != before


def test_a_pickled_processor_gives_the_same_tensors(processor, ordinary):
    again = pickle.loads(pickle.dumps(processor))
    assert_is_ordinary(again, PICTURE, ordinary)
    assert again.answer_grammar.tasks == processor.answer_grammar.tasks


# --- Trainers that hand on pixel_values alone ------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(64, 64), (64, 48), (48, 64)])
def test_packed_pixels_of_both_towers_are_told_apart_by_the_model(tiny_arguments, radiographs, tmp_path, sides):
    towers = [tiny_arguments.vision_config, tiny_arguments.aux_vision_config]
    towers = [tower | {"image_size": side, "patch_size": 16} for tower, side in zip(towers, sides, strict=True)]
    names = ("vision_config", "aux_vision_config")
    sizes = dict(zip(names, towers, strict=True)) | {"visual_token_group_size": 1}
    new_checkpoint(replace(tiny_arguments, output_dir=str(tmp_path), **sizes))
    model, processor = load_checkpoint(tmp_path)
    ask = {"images": radiographs[0], "text": processor.prompt("vqa"), "return_tensors": "pt"}
    expected = model(**processor(**ask)).logits
    processor = LiteGPTProcessor.from_pretrained(tmp_path, pack_pixel_values=True)
    inputs = processor(**ask)
    assert "aux_pixel_values" not in inputs and "aux_pixel_values" not in processor.model_input_names
    assert inputs["pixel_values"].shape == (1, 6, 64, 64)
    assert torch.equal(model(**inputs).logits, expected)
    with pytest.raises(ValueError, match="aux_pixel_values is missing"):
        model(**(inputs | {"pixel_values": inputs["pixel_values"][:, :3]}))


def test_trls_grpo_trainer_sees_both_towers(tiny_checkpoint, radiographs, tmp_path):
    model, processor = load_checkpoint(tiny_checkpoint)
    processor.pack_pixel_values = True
    seen = []
    model.model.aux_vision_tower.register_forward_hook(lambda *of_call: seen.append(of_call))
    question = [{"type": "image"}, {"type": "text", "text": f"[vqa] {processor.instructions['vqa']}"}]
    rows = [{"prompt": [{"role": "user", "content": question}], "image": image} for image in radiographs[:2]]
    arguments = GRPOConfig(
        str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=8,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        beta=0.1,
        report_to="none",
        save_strategy="no",
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=lambda completions, **kwargs: [float(len(str(completion))) for completion in completions],
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    trainer.train()
    assert len(seen) >= 2  # the answers, and the step's own pass
