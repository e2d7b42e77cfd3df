"""The evaluation of a tiny random CXR-CLIP on drawn radiographs, from the command to the reports."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import BertTokenizer, CLIPImageProcessorPil

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.label_prompts import WORDINGS
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts import embeddings, evaluate_cxr_clip
from litegpt.evaluation_scripts.arguments import CXR_CLIP_WORDINGS, CXRCLIPEvaluationArguments
from litegpt.evaluation_scripts.embeddings import Encoder, grey_pixels, stored
from litegpt.evaluation_scripts.reports.cxr_clip import verdict
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip, save_cxr_clip
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor

SIDE = 32
LABELS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Other lesion", "No finding"]
WORDS = "no there is edema heart the enlarged cardiomegaly consolidation effusion pleural lungs clear number .".split()


def picture(labels: list[int], rng: np.random.Generator) -> bytes:
    """Noise with a bright square at a place of its own for each label."""
    pixels = rng.integers(60, 120, (40, 40)).astype(np.uint8)
    for label in labels:
        row, column = divmod(label, 3)
        pixels[12 * row : 12 * row + 10, 12 * column : 12 * column + 10] += 100
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_prepared(folder: Path, columns: tuple[str, ...], name: str = "Drawn") -> Path:
    """A prepared folder: 48 radiographs to train on, 24 to test, each of the five labels alone, or none."""
    features = row_features([], LABELS, columns)
    (folder / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 24)):
        rows = []
        for number in range(count):
            labels = [number % 6] if number % 6 < 5 else [6]
            if number % 4 == 0:
                labels.append(5)
            report = f"number {number} {split}" if number % 8 else "the lungs are clear."
            row = {
                "image_id": f"{split}{number}",
                "image": {"bytes": picture([label for label in labels if label != 6], rng), "path": None},
                "width": 40,
                "height": 40,
                "findings": [],
                "diagnoses": labels,
                "view": "PA",
                "study_id": f"{split}{number}",
                "patient_id": f"{split}p{number // 2}",
                "report_findings": report,
                "report_impression": "no",
            }
            rows.append({column: row[column] for column in features})
        table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(f"---\npretty_name: {name}\nlicense: other\n---\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    columns = ("study_id", "patient_id", "report_findings", "report_impression")
    return write_prepared(tmp_path_factory.mktemp("data") / "drawn", columns)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(1)  # other weights than the random ones that it is compared with
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(str(number) for number in range(48))]
    vision = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]}
    text = {"model_type": "bert", "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1}
    config = CXRCLIPConfig(
        vision_config={**vision, "layer_type": "basic"},
        text_config={**text, "num_attention_heads": 2, "intermediate_size": 16},
        image_size=SIDE,
        projection_dim=8,
    )
    pixels = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    tokenizer = BertTokenizer({word: number for number, word in enumerate(words)})
    folder = tmp_path_factory.mktemp("cxr_clip") / "checkpoint"
    save_cxr_clip(CXRCLIPModel(config).eval(), CXRCLIPProcessor(pixels, tokenizer, max_length=16), folder)
    return folder


@pytest.fixture(scope="module")
def arguments(data, checkpoint, tmp_path_factory) -> CXRCLIPEvaluationArguments:
    return CXRCLIPEvaluationArguments(
        str(checkpoint),
        str(data),
        str(tmp_path_factory.mktemp("out") / "eval"),
        train_split="train",
        min_positives=4,
        batch_size=5,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def output(arguments) -> Path:
    evaluate_cxr_clip.main(arguments)
    return Path(arguments.output_dir)


@pytest.fixture(scope="module")
def metrics(output) -> dict:
    return json.loads((output / "metrics.json").read_text())


@pytest.fixture
def encoder(checkpoint, tmp_path) -> Encoder:
    return Encoder(*load_cxr_clip(checkpoint), tmp_path / "embeddings", batch_size=5)


def test_the_wordings_are_those_of_the_prompts():
    assert CXR_CLIP_WORDINGS == WORDINGS


def test_every_task_has_its_figures_intervals_and_controls(metrics):
    zero_shot = metrics["zero_shot"]
    assert zero_shot["wordings"] == ["report", "plain", "paper", "templates"]
    assert list(zero_shot["labels"]) == LABELS[:5]
    for wording in zero_shot["wordings"]:
        for kind in ("figures", "intervals"):
            assert zero_shot[kind][wording]["abnormal"]["macro"] is not None
            assert set(zero_shot[kind][wording]["all"]["per_label"]) == set(LABELS[:5])
    # 20 of 24 radiographs are abnormal by one of the five; of the 4 others "Other lesion" stands beside two.
    assert metrics["data_set"]["abnormal"] == 20 and metrics["data_set"]["radiographs"] == 24
    assert zero_shot["figures"]["anything_there"]["all"]["macro"] == pytest.approx((4 + 16 / 2) / 20)
    assert metrics["classes"]["images"] == 20 and metrics["classes"]["commonest"] == 0.2
    retrieval = metrics["retrieval"]
    assert retrieval["studies"] == 24 and retrieval["texts"] == 22  # three normal ones have one text
    assert retrieval["new_texts"]["texts"] == 21
    assert retrieval["chance"]["image_to_text"]["mean_rank"] == 11.5
    assert metrics["bootstrap"]["unit"] == "patient" and metrics["bootstrap"]["patients"] == 12


def test_probes_of_pixels_see_the_squares_and_stand_beside_random_weights(metrics):
    whole = metrics["probe"]["parts"]["100"]
    assert metrics["probe"]["labels"] == LABELS[:6]
    assert whole["figures"]["pixels"]["all"]["macro"] > 0.95
    assert set(whole["figures"]) >= {"features", "random", "features_less_random", "features_less_pixels"}
    assert whole["images"] == [48] and metrics["probe"]["parts"]["10"]["images"] == [6] * 3  # whole patients


def test_what_is_left_out_and_what_is_doubtful_is_said(metrics):
    assert metrics["left_out"] == {"Other lesion, zero-shot": "no sentences"}
    warnings = " ".join(metrics["warnings"])
    assert "the probe at 1 % learns from few radiographs (2): noise." in warnings
    assert "fewer than 30 positive radiographs" in warnings and "training split too" not in warnings


def test_the_reports_open_with_the_verdict(output, metrics):
    html = (output / "report.html").read_text()
    first = re.search(r'<p class="verdict">(.*?)</p>', html)[1]
    assert re.match(r"<b>Zero-shot is (above|below|not shown to differ from) the shuffled control and", first)
    assert "A linear probe on all training radiographs reaches" in first
    assert "<title>CXR-CLIP: evaluation</title>" in html and html.count("<svg") == 1
    markdown = (output / "report.md").read_text()
    assert markdown.splitlines()[2].startswith("**Zero-shot is ") and "\n## Retrieval\n" in markdown
    assert "| anything there? |" in markdown and "Published figures" not in markdown
    assert str(output.parent) not in html + markdown + json.dumps(metrics)


def test_the_same_command_reads_the_embeddings_again(arguments, output, metrics, monkeypatch):
    files = {path: path.stat().st_mtime_ns for path in output.rglob("*.npy")}
    monkeypatch.setattr(Encoder, "pictures", lambda *_: pytest.fail("a radiograph is read again"))
    evaluate_cxr_clip.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.npy")} == files and len(files) >= 8
    assert json.loads((output / "metrics.json").read_text()) == metrics


def test_a_task_that_the_data_does_not_allow_is_left_out(arguments, tmp_path, capsys):
    data = write_prepared(tmp_path / "plain", ())
    args = replace(arguments, data_dir=str(data), output_dir=str(tmp_path / "out"), train_split=None, min_positives=5)
    evaluate_cxr_clip.main(args)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["retrieval"] is metrics["probe"] is metrics["zero_shot"] is None
    assert metrics["left_out"]["Edema"] == "4 positive and 20 negative radiographs"
    assert metrics["left_out"]["probe"] == "there is no --train_split"
    assert metrics["left_out"]["retrieval"] == "the data has no reports"
    assert "no patients are known" in (tmp_path / "out" / "report.md").read_text()


def test_training_on_this_data_and_testing_on_training_radiographs_is_warned_of(arguments, checkpoint, tmp_path):
    model, processor = load_cxr_clip(checkpoint)
    model.config.training_record = [{"data_set": {"name": "Drawn"}, "radiographs": 48}]
    model.save_pretrained(tmp_path / "trained")
    processor.save_pretrained(tmp_path / "trained")
    args = replace(
        arguments,
        model_name_or_path=str(tmp_path / "trained"),
        output_dir=str(tmp_path / "out"),
        split="train[:24]",
        tasks=["zero_shot"],
        wordings=["paper"],
    )
    evaluate_cxr_clip.main(args)
    warnings = json.loads((tmp_path / "out" / "metrics.json").read_text())["warnings"]
    assert warnings[0].startswith("the checkpoint was trained on Drawn")
    assert "radiographs of the split that are in the training split too: 24; probes have seen them." in warnings
    assert "patients of the split that are in the training split too: 12; probes have seen them." in warnings


def test_lateral_radiographs_can_be_left_out():
    rows = Dataset.from_dict({"image_id": list("abcd"), "view": ["PA", "Lateral", "", "LL"]})
    assert evaluate_cxr_clip.without_laterals(rows)["image_id"][:] == ["a", "c"]


def test_published_figures_stand_beside_their_own_data_set_alone(arguments, tmp_path):
    data = write_prepared(tmp_path / "vindr", (), "VinDr-CXR")
    args = replace(
        arguments, data_dir=str(data), output_dir=str(tmp_path / "out"), tasks=["zero_shot"], controls=False
    )
    evaluate_cxr_clip.main(args)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| S, M,C | 82.7 | 86.1 | 86.7 |" in report and "RSNA ZS" not in report


def test_vectors_are_those_of_the_model_and_do_not_hang_on_the_batches(encoder, data, arguments):
    rows = load_rows(str(data), "test", arguments.cache_dir)
    arrays = encoder.images(rows)
    with torch.no_grad():
        pixel_values = encoder.processor(images=rows["image"][:3])["pixel_values"]
        expected = encoder.model(pixel_values=pixel_values).image_embeds.numpy()
        pooled = encoder.model.get_pooled_features(pixel_values).numpy()
    np.testing.assert_allclose(arrays["vectors"][:3], expected, atol=1e-5)
    np.testing.assert_allclose(arrays["pooled"][:3], pooled, atol=1e-5)
    assert arrays["pixels"].shape == (24, 256) and isinstance(arrays["pooled"], np.memmap)
    texts = encoder.texts(["no edema .", "the lungs clear ."])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)


def test_other_weights_and_other_rows_have_other_files(encoder, data, arguments, tmp_path):
    rows = load_rows(str(data), "test[:4]", arguments.cache_dir)
    encoder.images(rows)
    encoder.images(load_rows(str(data), "test[4:8]", arguments.cache_dir))
    with torch.no_grad():
        encoder.model.image_projection.bias.add_(1)
    Encoder(encoder.model, encoder.processor, encoder.folder).images(rows)
    assert len(list(encoder.folder.iterdir())) == 3


def test_random_weights_have_the_batch_norms_of_the_radiographs(encoder, data, arguments):
    rows = load_rows(str(data), "train", arguments.cache_dir)
    twin, again = encoder.untrained_twin(rows), encoder.untrained_twin(rows)
    norms = [module for module in twin.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and all(not norm.training and not torch.equal(norm.running_var, torch.ones(1)) for norm in norms)
    for one, other in zip(twin.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(twin.image_projection.weight, encoder.model.image_projection.weight)


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCHES_A_NOTE", 2)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    asked = []

    def batches(start, names, until=10):
        asked.append(start)
        for first in range(start, until):
            yield {name: values[first : first + 1] for name in names}
        if until < 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "a", 10, {"x": 2, "y": 2}, lambda start, names: batches(start, names, until=5))
    assert not list((tmp_path / "a").glob("*.npy"))
    arrays = stored(tmp_path / "a", 10, {"x": 2, "y": 2}, batches)
    assert asked == [0, 4]
    np.testing.assert_array_equal(arrays["x"], values)
    np.testing.assert_array_equal(arrays["y"], values)
    assert stored(tmp_path / "a", 10, {"x": 2, "z": 2}, batches)["z"].tolist() == values.tolist()  # z alone is made
    assert asked == [0, 4, 0] and len(list((tmp_path / "a").iterdir())) == 3


def test_grey_pixels_are_means_of_the_whole_radiograph():
    pixels = np.zeros((64, 32), dtype=np.uint8)
    pixels[:4, :2] = 255
    assert grey_pixels(Image.fromarray(pixels)).tolist() == [1.0] + [0.0] * 255


def test_the_verdict_names_what_is_and_what_is_not_above_its_controls(metrics):
    made_up = json.loads(json.dumps(metrics))
    intervals = made_up["zero_shot"]["intervals"]
    intervals["report_less_shuffled"]["all"]["macro"] = [0.1, 0.2]
    intervals["report_less_anything_there"]["all"]["macro"] = [-0.1, 0.2]
    for label in LABELS[:5]:
        intervals["report"]["abnormal"]["per_label"][label] = [0.6 if label == "Edema" else 0.4, 0.9]
    made_up["retrieval"]["intervals"]["less_shuffled"]["image_to_text"]["mean_rank"] = [-5, -1]
    made_up["probe"]["parts"]["100"]["intervals"]["features_less_random"]["all"]["macro"] = [0.01, 0.1]
    made_up["probe"]["parts"]["100"]["intervals"]["features_less_pixels"]["all"]["macro"] = [-0.2, -0.1]
    text = " ".join(verdict(made_up))
    assert "is above the shuffled control and not shown to differ from what knowing only" in text
    assert "better than chance for Edema; that is not shown for Atelectasis, Cardiomegaly, Consolidation" in text
    assert "on average**, before the shuffled pairs'" in text
    assert re.search(
        r"below 16 x 16 grey pixels \([01]\.\d{3}\) and above the same network with random weights \(0\.\d{3}\)", text
    )
