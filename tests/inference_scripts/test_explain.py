"""Maps over a radiograph: the right place in any orientation, and files that hold nothing private."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image, ImageColor, ImageDraw
from torch.nn import functional

from litegpt.command import main
from litegpt.common.files import complete_lines
from litegpt.common.overlay import DISCLAIMER, colour_of_label, is_drawn
from litegpt.inference_scripts.arguments import CLASSIFIER_MAPS, EXPLAIN_METHODS
from litegpt.inference_scripts.label_maps import source_of as classifier_source
from litegpt.inference_scripts.radiograph_maps import in_digits, picture_of, wrapped
from litegpt.inference_scripts.similarity_maps import NOT_POOLED, similarity_map, source_of
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.modeling_litegpt.provenance import SYNTHETIC, UNTRAINED
from litegpt.modeling_towers.checkpoints import release_image_processor, save_cxr_clip
from litegpt.modeling_towers.classifier_checkpoints import load_classifier, save_classifier
from litegpt.modeling_towers.configuration_classifier import MAPS
from litegpt.processing.answer_maps import DEFAULT_METHOD, METHODS, label_maps, text_maps
from litegpt.processing.answers import findings_to_text, text_to_findings
from litegpt.processing.box_scores import Answer
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline, Shown, structured_answers
from tests.modeling_towers.test_modeling_cxr_clip import PIXELS, SIDE, new_model, new_processor
from tests.small_classifier import small_classifier
from tests.small_dicom import small_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of radiographs that are a white cell on black
GRID = 4
TEXTS = ["there is edema.", "no pneumothorax."]


class BrightPatches:
    """Stands in for a model: a patch is as like any sentence as it is bright, and unlike a contrasting "no"."""

    device = "cpu"

    def __call__(self, input_ids, attention_mask):
        no = (input_ids == 5).any(dim=1)
        return SimpleNamespace(text_embeds=torch.stack([~no, no], dim=1).float())

    def get_patch_embeddings(self, pixels):
        greys = pixels.mean(1).unflatten(1, (GRID, -1)).unflatten(3, (GRID, -1)).mean((2, 4))
        angles = (1 + greys.flatten(1)) * torch.pi / 4  # -1 is black, 1 is white
        return torch.stack([angles.sin(), angles.cos()], dim=-1)

    def get_image_features(self, pixels):
        return SimpleNamespace(pooler_output=self.get_patch_embeddings(pixels).mean(1))


def bright_at(size, row, column):
    """Greys (height, width), black but for one of 4 x 4 cells."""
    greys = np.zeros(size[::-1], np.uint8)
    height, width = (side // GRID for side in greys.shape)
    greys[row * height : (row + 1) * height, column * width : (column + 1) * width] = 255
    return greys


def test_the_largest_cosine_is_where_the_bright_patch_is_in_pixels_of_a_radiograph_that_is_not_square():
    found = similarity_map(BrightPatches(), new_processor(), bright_at((160, 80), 1, 3), "there is edema.")
    assert found.grid.shape == (GRID, GRID) and found.grid.dtype == np.float32
    assert found.largest == (1, 3) and found.box(*found.largest) == (120, 20, 160, 40)
    assert found.grid[1, 3] == pytest.approx(1, abs=0.05) and found.grid[3, 0] == pytest.approx(0, abs=0.05)
    over = found.over()
    assert over.shape == (80, 160) and np.unravel_index(over.argmax(), over.shape)[1] >= 120
    assert over[30, 140] > 0.9 and over[70, 20] < 0.1 and not np.isnan(over).any()


@pytest.mark.parametrize("orientation", [["R", "F"], ["L", "H"], ["F", "L"], ["H", "R"], ["H", "L"], ["F", "R"]])
def test_a_turned_dicoms_map_lies_as_its_file_does(orientation, tmp_path):
    dicom = small_dicom(bright_at((160, 80), 0, 2))
    dicom.PatientOrientation, dicom.ViewPosition = orientation, "PA"
    dicom.save_as(tmp_path / "turned.dicom", enforce_file_format=True)
    processor = new_processor()
    (picture,) = processor.load(tmp_path / "turned.dicom")
    assert picture.info.get("turn") is not None  # else this test says nothing
    found = similarity_map(BrightPatches(), processor, tmp_path / "turned.dicom", "there is edema.")
    assert found.size == (160, 80) and found.largest == (0, 2) and found.box(0, 2) == (80, 0, 120, 20)


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_crop_cuts_off_has_no_cosine_and_no_colour(turned):
    processor = new_processor()
    processor.image_processor = release_image_processor(SIDE, is_resnet=False)
    greys = np.full((100, 200), 40, np.uint8)
    greys[25:50, 100:125] = 255  # the third cell of the second row of the middle
    dicom = small_dicom(greys)
    if turned:
        dicom.PatientOrientation = ["F", "L"]
    found = similarity_map(BrightPatches(), processor, dicom, "there is edema.")
    assert found.seen == (50, 0, 150, 100) and found.largest == (1, 2) and found.box(1, 2) == (100, 25, 125, 50)
    columns = np.isnan(found.over()).all(axis=0)
    assert columns[:50].all() and columns[150:].all() and not columns[50:150].any()
    picture = np.asarray(picture_of(Image.fromarray(greys), found, line()))[:512].astype(int)  # twice as large
    grey = picture.max(axis=2) == picture.min(axis=2)
    assert grey[:500, :240].all() and grey[:500, 780:].all() and not grey[:500, 300:700].any()


def test_a_contrasting_sentence_is_subtracted():
    model, processor, greys = BrightPatches(), new_processor(), bright_at((80, 80), 2, 1)
    one, other = (similarity_map(model, processor, greys, text) for text in TEXTS)
    both = similarity_map(model, processor, greys, *TEXTS)
    np.testing.assert_allclose(both.grid, one.grid - other.grid, atol=1e-6)
    assert both.cosine == pytest.approx(one.cosine - other.cosine, abs=1e-6)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
@torch.no_grad()
def test_with_mean_pooling_a_radiographs_vector_is_the_mean_of_its_patches(tower):
    model, processor = new_model(tower), new_processor()
    patches = model.image_projection(model.get_patch_features(PIXELS))
    torch.testing.assert_close(patches.mean(1), model.get_image_features(PIXELS).pooler_output)
    # So cosines of patches, weighted by their vectors' lengths, make the radiograph's.
    greys = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    found = similarity_map(model, processor, greys, TEXTS[0])
    pixels = processor(images=greys)["pixel_values"]
    lengths = model.image_projection(model.get_patch_features(pixels))[0].norm(dim=-1).numpy()
    length = model.get_image_features(pixels).pooler_output.norm().item()
    assert found.cosine * length == pytest.approx((found.grid.ravel() * lengths).mean(), abs=1e-5)
    text = functional.normalize(model.get_text_features(**processor(text=TEXTS[:1])).pooler_output, dim=-1)
    outputs = model(pixel_values=pixels)
    assert found.cosine == pytest.approx((outputs.image_embeds @ text.T).item(), abs=1e-6)


def test_a_sentence_that_would_be_cut_is_refused():
    with pytest.raises(ValueError, match="a sentence has 22 tokens, more than the 16 that the model reads: no no"):
        similarity_map(BrightPatches(), new_processor(), bright_at((80, 80), 0, 0), "no " * 20)


def test_what_the_checkpoint_was_trained_on_and_how_it_pools_stand_with_its_maps():
    entry = {"data_set": {"name": "Open-i"}, "tasks": []}
    phantoms = {"data_set": {"name": "Phantoms in VinDr-CXR's layout"}, "tasks": []}
    mean = {"image_pooling": "mean", "base_models": []}
    assert source_of("a/b", {**mean, "training_record": [entry]}).line()["trained_on"] == ["Open-i"]
    assert source_of("a/b", {**mean, "training_record": [entry]}).caution is None
    assert source_of("a/b", {**mean, "training_record": [phantoms]}).caution == SYNTHETIC
    assert source_of("a/b", mean).caution == UNTRAINED
    published = source_of("a/b", {"image_pooling": "first", "base_models": ["cxr_clip"]})
    assert published.trained_on == ("MIMIC-CXR",) and published.caution == NOT_POOLED


def line(**changes):
    source = {"checkpoint": "acme/clip", "trained_on": ["Open-i"], "caution": "synthetic", "warnings": ["looks odd"]}
    return {"text": TEXTS[0], "against": None, **source, **changes}


def test_sentence_numbers_checkpoint_and_cautions_stand_below_the_picture(monkeypatch):
    written, draw_text = [], ImageDraw.ImageDraw.text

    def recording(self, xy, text, *args, **kwargs):
        written.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    greys = bright_at((160, 80), 1, 3)
    found = similarity_map(BrightPatches(), new_processor(), greys, *TEXTS)
    picture = picture_of(Image.fromarray(greys), found, line(against=TEXTS[1]))
    assert picture.width == 1024 and picture.height > 512  # the radiograph, enlarged, and the words
    words = " ".join(" ".join(written).split())
    low, high = (f"{value:.3f}" for value in (found.grid.min(), found.grid.max()))
    for expected in (*TEXTS, low, high, f"{found.cosine:.3f}", "acme/clip", "Open-i", "synthetic", "looks odd"):
        assert expected in words
    assert DISCLAIMER.split()[0] in words and "no segmentation" in words


def test_a_map_without_differences_is_drawn():
    found = similarity_map(BrightPatches(), new_processor(), np.full((80, 80), 60, np.uint8), TEXTS[0])
    assert picture_of(Image.new("L", (80, 80), 60), found, line()).width == 512


def test_long_sentences_are_wrapped():
    font = SimpleNamespace(getlength=len)
    assert wrapped("a bb ccc dddd", 5, font) == ["a bb", "ccc", "dddd"]


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def explain(tmp_path):
    """Runs the program; returns its status and the lines of its output."""
    folder = tmp_path / "secret_folder" / "acme" / "clip"
    folder.parent.mkdir(parents=True)
    save_cxr_clip(new_model(), new_processor(), folder)

    def run(*radiographs, texts=TEXTS, output_dir=tmp_path / "out", options=()):
        words = ["--model_name_or_path", str(folder), "--texts", *texts, "--output_dir", str(output_dir), *options]
        status = main(["explain", *words, *map(str, radiographs)])
        return status, complete_lines(output_dir / "maps.jsonl")

    return run


def test_each_radiograph_and_text_has_a_line_a_grid_and_a_picture_and_is_not_made_again(explain, tmp_path, capsys):
    inbox = tmp_path / "inbox"
    (inbox / "below").mkdir(parents=True)
    for name, width in (("below/a.png", 90), ("a.png", 80)):
        Image.fromarray(np.random.default_rng(width).integers(0, 256, (60, width)).astype(np.uint8)).save(inbox / name)
    (inbox / "notes.txt").write_text("nothing to see")
    status, lines = explain(inbox)
    assert status == 0 and [(line["file"], line["text"]) for line in lines] == [
        (name, text) for name in ("a.png", "below/a.png") for text in TEXTS
    ]
    assert [line["grid"] for line in lines] == ["a_1.npy", "a_2.npy", "a_3.npy", "a_4.npy"]
    for line in lines:
        grid = np.load(tmp_path / "out" / line["grid"])
        assert grid.shape == (4, 4) and grid.max() == pytest.approx(line["largest"], abs=1e-6)
        assert is_drawn((tmp_path / "out" / line["overlay"]).read_bytes())
        assert line["checkpoint"] == "acme/clip" and line["not_for_diagnosis"] and line["caution"]
        assert line["box"]["xmax"] - line["box"]["xmin"] in (20, 22, 23) and line["seen"]["xmax"] == line["width"]
    assert "4 maps; 0 radiographs could not be used; 1 files skipped" in capsys.readouterr().out

    # Again: what an interruption cut off is made, nothing else; a further text is made beside them.
    path = tmp_path / "out" / "maps.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]) + json.dumps(lines[3])[:40])
    before = (tmp_path / "out" / "a_1.png").stat().st_mtime_ns
    assert explain(inbox) == (0, lines)
    status, more = explain(inbox, texts=["there is edema.", "edema"])
    assert more[:4] == lines and [line["text"] for line in more[4:]] == ["edema", "edema"]
    assert (tmp_path / "out" / "a_1.png").stat().st_mtime_ns == before
    contrasted = explain(inbox, texts=["edema"], options=["--against", "no edema"])[1]
    assert [line["against"] for line in contrasted[6:]] == ["no edema"] * 2


def test_a_radiograph_that_was_replaced_gets_another_map(explain, tmp_path):
    for width in (80, 90):
        Image.new("L", (width, 60), 90).save(tmp_path / "a.png")
        _, lines = explain(tmp_path / "a.png", texts=["edema"])
    assert [(line["width"], line["grid"]) for line in lines] == [(80, "a_1.npy"), (90, "a_2.npy")]


def test_a_file_that_cannot_be_used_is_named_and_the_others_go_on(explain, tmp_path, capsys):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.dcm").write_text("no radiograph")
    Image.new("L", (80, 60), 90).save(inbox / "b.png")
    status, lines = explain(inbox, texts=["edema"])
    assert status == 1 and [line["file"] for line in lines] == ["b.png"]
    said = capsys.readouterr()
    assert "a.dcm: it is neither a DICOM file nor a picture" in said.err and "1 radiographs could not" in said.out


def test_maps_written_into_the_inbox_are_no_radiographs(explain, tmp_path, capsys):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    Image.new("L", (80, 60), 90).save(inbox / "a.png")
    for output_dir in (inbox, inbox, inbox / "out", inbox / "later"):
        status, lines = explain(inbox, texts=["edema"], output_dir=output_dir)
        assert status == 0 and [line["file"] for line in lines] == ["a.png"]
    assert "2 files skipped" in capsys.readouterr().out.splitlines()[-1]


def test_outputs_hold_neither_a_path_of_the_machine_nor_a_tag_of_the_patient(explain, tmp_path):
    dicom = small_dicom(bright_at((160, 80), 0, 2))
    dicom.PatientName, dicom.PatientID, dicom.SOPInstanceUID = "Doe^Jane", "MRN-4711", "1.2.826.99"
    dicom.save_as(tmp_path / "radiograph.dicom", enforce_file_format=True)
    status, (line,) = explain(tmp_path / "radiograph.dicom", texts=["edema"])
    assert status == 0 and line["file"] == "radiograph.dicom"
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes() + str(getattr(Image.open(path), "info", "") if path.suffix == ".png" else "").encode()
        for private in (str(tmp_path), "secret_folder", "Doe", "MRN-4711", "1.2.826.99"):
            assert private.encode() not in data, path
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["maps.jsonl", line["grid"], line["overlay"]]
    )


def test_what_cannot_be_asked_is_refused_in_one_sentence(explain, explain_litegpt, tmp_path, tiny_checkpoint, capsys):
    Image.new("L", (80, 60), 90).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="a sentence has 22 tokens"):
        explain(tmp_path / "a.png", texts=["no " * 20])
    with pytest.raises(SystemExit, match="2"):
        explain(tmp_path / "a.png", texts=[" "])
    assert "a sentence of --texts or --against is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        explain(tmp_path / "none.png")
    with pytest.raises(SystemExit, match="--method is for checkpoints of LiteGPT, and .*clip is a CXR-CLIP."):
        explain(tmp_path / "a.png", options=["--method", "occlusion"])
    for option in ("--texts", "--against"):
        with pytest.raises(SystemExit, match=f"{option} is for checkpoints of CXR-CLIP, and .*tiny is a LiteGPT."):
            explain_litegpt(tmp_path / "a.png", options=[option, "edema"])
    with pytest.raises(SystemExit, match="the checkpoint has no finding 'Cold'; it has: Aortic enlargement"):
        explain_litegpt(tmp_path / "a.png", options=["--findings", "ILD", "Cold"])
    with pytest.raises(SystemExit, match="2"):
        explain_litegpt(tmp_path / "a.png", options=["--findings", "ILD", "--tokens"])
    assert "choose one of the two" in capsys.readouterr().err
    clip = tmp_path / "secret_folder" / "acme" / "clip"
    words = ["--model_name_or_path", str(clip), "--output_dir", str(tmp_path / "out"), str(tmp_path / "a.png")]
    with pytest.raises(SystemExit, match="--texts is missing: sentences that .*clip, a CXR-CLIP, is to look for"):
        main(["explain", *words])
    config = json.loads((clip / "config.json").read_text())
    (clip / "config.json").write_text(json.dumps({**config, "model_type": "ecamp"}))
    with pytest.raises(
        SystemExit, match="a checkpoint of ecamp; maps are made of LiteGPT, CXR-CLIP, radiograph classifier"
    ):
        main(["explain", *words])


# --- The command, of a LiteGPT checkpoint ----------------------------------------------------------------------------

ANSWER = "Local diseases of this chest radiograph are <p>ILD</p> {<10><20><50><90>},<p>Nodule/Mass</p> {<1><2><5><9>}."


class Reciting(ChestXrayFindingsPipeline):
    """The pipeline, with one answer to every radiograph."""

    answer = ANSWER

    def __call__(self, radiograph):
        shown = Shown(radiograph.size, radiograph.info.get("turn"))
        return structured_answers({"identify": Answer(self.answer, [], [])}, shown, self.processor)


@pytest.fixture
def explain_litegpt(tiny_checkpoint, tmp_path):
    """Runs the program on an untrained LiteGPT checkpoint."""

    def run(*radiographs, output_dir=tmp_path / "out", options=(), checkpoint=tiny_checkpoint):
        words = ["--model_name_or_path", str(checkpoint), "--output_dir", str(output_dir), *map(str, radiographs)]
        status = main(["explain", *words, *options])
        return status, complete_lines(output_dir / "maps.jsonl")

    return run


@pytest.fixture
def reciting(monkeypatch):
    monkeypatch.setattr("litegpt.inference_scripts.finding_maps.ChestXrayFindingsPipeline", Reciting)


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        greys = np.random.default_rng(number).integers(0, 256, (60, 80 + number)).astype(np.uint8)
        Image.fromarray(greys).save(folder / name)
    return folder


def test_each_finding_of_an_answer_has_a_line_a_grid_and_a_picture_with_its_box(
    explain_litegpt, reciting, inbox, tmp_path, tiny_checkpoint, capsys
):
    status, lines = explain_litegpt(inbox)
    assert status == 0 and [(line["file"], line["explained"], line["number"], line["maps"]) for line in lines] == [
        (name, label, number, 2) for name in ("a.png", "b.png") for number, label in ((1, "ILD"), (2, "Nodule/Mass"))
    ]
    assert [line["grid"] for line in lines] == ["a_1.npy", "a_2.npy", "b_1.npy", "b_2.npy"]
    assert all(line["answer"] == ANSWER and line["method"] == "integrated" for line in lines)
    assert lines[0]["finding_box"] == {"xmin": 8, "ymin": 12, "xmax": 40, "ymax": 54}
    assert lines[0]["checkpoint"].endswith("tiny") and lines[0]["caution"] and lines[0]["not_for_diagnosis"]
    model, processor = load_checkpoint(tiny_checkpoint)
    for name, of_file in (("a.png", lines[:2]), ("b.png", lines[2:])):
        pixels = processor(images=inbox / name, text=processor.prompt("identify"), return_tensors="pt")
        words = [[[finding.label_span] for finding in text_to_findings(ANSWER, processor.finding_labels)]]
        (expected,) = text_maps(model.eval(), processor, pixels, [ANSWER], words)
        for line, grid in zip(of_file, expected, strict=True):
            np.testing.assert_allclose(np.load(tmp_path / "out" / line["grid"]), grid, rtol=1e-3, atol=1e-6)
            assert line["largest"] == pytest.approx(grid.max(), rel=1e-3)
    picture = Image.open(tmp_path / "out" / "a_1.png")
    scale = 512 / 60
    edge = [picture.getpixel((round(scale * 8) + 1, round(scale * y))) for y in (20, 30, 40, 50)]
    assert set(edge) == {ImageColor.getrgb(colour_of_label("ILD"))}
    assert is_drawn((tmp_path / "out" / "a_1.png").read_bytes())
    capsys.readouterr()

    # Again, killed amid the maps of the second radiograph's answer: the last is made, nothing else.
    path = tmp_path / "out" / "maps.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]) + json.dumps(lines[3])[:40])
    (tmp_path / "out" / "b_2.npy").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[ab]_*")}
    assert explain_litegpt(inbox) == (0, lines)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[ab]_*")}
    assert {name for name in after if after[name] != before.get(name)} == {"b_2.npy", "b_2.png"}
    assert "4 maps; 0 radiographs could not be used" in capsys.readouterr().out
    # Another method is another question.
    _, more = explain_litegpt(inbox / "a.png", options=["--method", "attention"])
    assert [line["method"] for line in more[4:]] == ["attention"] * 2


def test_an_answer_without_findings_has_a_map_of_its_words_and_every_token_can_have_one(
    explain_litegpt, reciting, inbox, monkeypatch
):
    monkeypatch.setattr(Reciting, "answer", findings_to_text([]))
    status, (line, _) = explain_litegpt(inbox)
    assert status == 0 and line["explained"] == "No finding" and line["finding_box"] is line["score"] is None
    status, lines = explain_litegpt(inbox / "b.png", options=["--tokens", "--method", "attention"])
    assert status == 0 and lines[2]["maps"] == len(lines) - 2 > 1
    assert "".join(line["explained"] for line in lines[2:]) == line["answer"]


def test_given_findings_are_explained_as_if_they_had_been_answered(explain_litegpt, inbox, tmp_path, tiny_checkpoint):
    options = ["--method", "gradient_attention", "--findings"]
    status, lines = explain_litegpt(inbox / "a.png", options=[*options, "ILD", "Cardiomegaly"])
    assert status == 0 and [line["explained"] for line in lines] == ["ILD", "Cardiomegaly"]
    assert all(line["answer"] is line["finding_box"] is None for line in lines)
    model, processor = load_checkpoint(tiny_checkpoint)
    pixels = processor(images=inbox / "a.png", text=processor.prompt("identify"), return_tensors="pt")
    for line in lines:
        (expected,) = label_maps(model.eval(), processor, pixels, [line["explained"]], "gradient_attention")
        np.testing.assert_allclose(np.load(tmp_path / "out" / line["grid"]), expected, rtol=1e-3, atol=1e-6)
    _, more = explain_litegpt(inbox / "a.png", options=[*options, "ILD", "Edema"])
    assert more[:2] == lines and [line["explained"] for line in more[2:]] == ["Edema"]


def test_a_turned_dicoms_map_of_an_answer_lies_as_its_file_does(explain_litegpt, reciting, tmp_path):
    greys = np.random.default_rng(0).integers(0, 256, (80, 120)).astype(np.uint8)
    for name, stored, orientation in (("a", greys, ["L", "F"]), ("b", greys[:, ::-1], ["R", "F"])):
        dicom = small_dicom(np.ascontiguousarray(stored))
        dicom.PatientOrientation = orientation
        dicom.save_as(tmp_path / f"{name}.dicom", enforce_file_format=True)
    status, lines = explain_litegpt(tmp_path / "a.dicom", tmp_path / "b.dicom", options=["--method", "attention"])
    upright, mirrored = (np.load(tmp_path / "out" / line["grid"]) for line in (lines[0], lines[2]))
    np.testing.assert_allclose(mirrored, upright[:, ::-1], rtol=1e-3, atol=1e-6)
    assert status == 0 and np.abs(mirrored - upright).max() > 1e-4  # else this test says nothing
    assert lines[2]["finding_box"]["xmin"] == 120 - lines[0]["finding_box"]["xmax"]


def test_an_adapter_is_explained_as_a_checkpoint(explain_litegpt, inbox, tmp_path, tiny_checkpoint):
    folder = tmp_path / "merged"
    shutil.copytree(tiny_checkpoint, folder)
    model = get_peft_model(load_checkpoint(tiny_checkpoint)[0], LoraConfig(target_modules=LORA_TARGET_MODULES))
    model.save_pretrained(folder / "adapter")
    status, lines = explain_litegpt(inbox / "a.png", checkpoint=folder / "adapter")
    assert status == 0 and lines[0]["checkpoint"] == "merged/adapter"


def test_what_a_map_of_an_answer_is_stands_below_the_picture(explain_litegpt, reciting, inbox, monkeypatch):
    written, draw_text = [], ImageDraw.ImageDraw.text

    def recording(self, xy, text, *args, **kwargs):
        written.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    _, lines = explain_litegpt(inbox / "a.png", options=["--method", "occlusion"])
    words = " ".join(" ".join(written).split())
    for expected in ('"ILD"', METHODS["occlusion"], ANSWER, "no segmentation", "ILD", lines[0]["checkpoint"]):
        assert expected in words
    assert DISCLAIMER.split()[0] in words and lines[0]["caution"] in words


def test_the_methods_are_those_of_the_maps():
    assert dict.fromkeys(EXPLAIN_METHODS) == dict.fromkeys(METHODS) and DEFAULT_METHOD == "integrated"
    assert CLASSIFIER_MAPS == MAPS


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [(0.5, 0.1, 0.9, "0.500"), (0.002, 0, 0.0042, "0.00200"), (-1e-6, -2e-6, 1e-6, "-0.00000100"), (0, 0, 0, "0.000")],
)
def test_numbers_at_the_bar_show_three_digits_of_its_range(value, low, high, text):
    assert in_digits(value, low, high) == text


# --- The command, of a radiograph classifier -------------------------------------------------------------------------


@pytest.fixture
def explain_classifier(tmp_path):
    """Runs the program on a small classifier, which calls a mass present and a nodule not."""
    folder = tmp_path / "classifier"
    save_classifier(*small_classifier(present={"Mass": 0.0, "Nodule": 1.1}), folder)

    def run(*radiographs, output_dir=tmp_path / "out", options=()):
        words = ["--model_name_or_path", str(folder), "--output_dir", str(output_dir), *map(str, radiographs)]
        status = main(["explain", *words, *options])
        return status, complete_lines(output_dir / "maps.jsonl")

    return run


def test_a_classifier_gets_a_map_of_each_label_that_it_calls_present(explain_classifier, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    status, (line,) = explain_classifier(tmp_path / "a.png")
    model, processor = load_classifier(tmp_path / "classifier")
    outputs = model.eval()(processor(images=Image.fromarray(pixels))["pixel_values"], return_maps=True)
    assert status == 0 and (line["explained"], line["explains"], line["method"]) == ("Mass", "present", "cam")
    assert line["score"] == pytest.approx(outputs.logits.sigmoid()[0, 0].item(), abs=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "out" / line["grid"]), outputs.maps[0, 0].detach(), atol=1e-4)
    assert line["finding_boxes"] and {"xmin", "ymin", "xmax", "ymax"} == line["finding_boxes"][0]["box"].keys()
    assert is_drawn((tmp_path / "out" / line["overlay"]).read_bytes())
    before = (tmp_path / "out" / "maps.jsonl").read_bytes()
    assert explain_classifier(tmp_path / "a.png")[0] == 0  # and nothing is made again
    assert (tmp_path / "out" / "maps.jsonl").read_bytes() == before


def test_a_classifiers_own_training_is_what_its_maps_are_from():
    entry = {"program": "train_classifier.py", "data_set": {"name": "ChestX-ray14"}, "tasks": []}
    assert classifier_source("c", {"training_record": [entry]}).caution is None
    synthetic = {**entry, "data_set": {"name": "Phantoms"}}
    assert classifier_source("c", {"training_record": [synthetic]}).caution == SYNTHETIC
    trunk = {**entry, "program": "pretrain_ecamp.py"}
    assert classifier_source("c", {"training_record": [trunk]}).caution == UNTRAINED


def test_named_labels_of_a_classifier_have_a_map_each_by_the_method_asked_for(explain_classifier, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 70)).astype(np.uint8)).save(tmp_path / "a.png")
    options = ["--findings", "Nodule", "Mass", "--method", "positive"]
    _, lines = explain_classifier(tmp_path / "a.png", options=options)
    assert [(line["explained"], line["method"]) for line in lines] == [("Nodule", "positive"), ("Mass", "positive")]
    assert not lines[0]["finding_boxes"]  # it is not called present
    assert all(np.load(tmp_path / "out" / line["grid"]).min() >= 0 for line in lines)


def test_what_a_classifier_does_not_know_is_refused(explain_classifier, explain_litegpt, tmp_path):
    Image.new("L", (80, 60), 90).save(tmp_path / "a.png")
    for options, said in (
        (["--findings", "Edema"], "no label 'Edema'; it has: Mass, Nodule"),
        (["--method", "occlusion"], "--method occlusion: a classifier has cam and positive"),
        (["--tokens"], "--tokens is for checkpoints of LiteGPT"),
        (["--texts", "edema."], "--texts is for checkpoints of CXR-CLIP"),
    ):
        with pytest.raises(SystemExit, match=said):
            explain_classifier(tmp_path / "a.png", options=options)
    with pytest.raises(SystemExit, match="--method cam: a LiteGPT has attention"):
        explain_litegpt(tmp_path / "a.png", options=["--method", "cam"])
