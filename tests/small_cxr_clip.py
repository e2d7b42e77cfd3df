"""Drawn radiographs with made-up reports, a tiny CXR-CLIP, and a training of it that a test can afford."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from transformers import TrainingArguments

from litegpt.datasets_scripts.annotations import row_features
from litegpt.train_scripts import pretrain_cxr_clip
from litegpt.train_scripts.arguments import ContrastArguments, CXRCLIPArguments, StudyArguments

SIDE = 32
LABELS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumothorax", "No finding"]
REPORTS = ("study_id", "report_findings", "report_impression")
VIT = {
    "model_type": "vit",
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
}
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [1, 1],
    "layer_type": "basic",
}
BERT = {
    "model_type": "bert",
    "vocab_size": 200,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# Nothing is drawn: what a batch shows hangs on its studies alone.
PLAIN = {"study_sampling": False, "augment": False}


def picture(number: int, side: int = 64) -> bytes:
    """A PNG of noise with a bright square whose place hangs on the number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(40, 90, (side, side)).astype(np.uint8)
    row, column = divmod(number % 16, 4)
    pixels[row * side // 4 :, column * side // 4 :][: side // 4, : side // 4] += 120
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def row(number: int, labels: list[int] | None = None, **values: Any) -> dict[str, Any]:
    """A radiograph of a study of its own, with both sections of a report; `values` say what is different."""
    return {
        "image_id": f"image{number}",
        "image": {"bytes": picture(number), "path": None},
        "width": 64,
        "height": 64,
        "findings": [],
        "diagnoses": [number % 6] if labels is None else labels,
        "view": "PA",
        "study_id": f"study{number}",
        "report_findings": f"Mark f{number} one. Mark f{number} two. Mark f{number} three.",
        "report_impression": f"Mark i{number} one. Mark i{number} two.",
        **values,
    }


def rows_of(entries: list[dict[str, Any]], columns: tuple[str, ...] = REPORTS, labels=LABELS) -> datasets.Dataset:
    """Rows of `annotations.row_features`, in memory."""
    features = row_features([], labels, columns)
    return datasets.Dataset.from_list([{name: entry[name] for name in features} for entry in entries], features)


def write_prepared(folder: Path, entries: dict[str, list[dict[str, Any]]], **options: Any) -> str:
    """A prepared folder with the entries of each split; its name is the folder's."""
    (folder / "data").mkdir(parents=True)
    for split, of_split in entries.items():
        rows = rows_of(of_split, **options)
        table = pa.Table.from_pylist(rows.with_format("arrow")[:].to_pylist(), schema=rows.features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(f"---\npretty_name: {folder.name}\nlicense: other\n---\n")
    return str(folder)


def pretrain(output_dir: Path | str, data_dirs: list[str], **options: Any) -> None:
    """Runs `pretrain_cxr_clip.main`; `options` are those of any of its argument classes."""
    of_class = {
        arguments: {name: options.pop(name) for name in list(options) if name in arguments.__dataclass_fields__}
        for arguments in (CXRCLIPArguments, StudyArguments, ContrastArguments)
    }
    sizes = {"vision_config": VIT, "text_config": BERT, "image_size": SIDE, "projection_dim": 8, "max_length": 48}
    defaults = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    defaults |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    pretrain_cxr_clip.main(
        CXRCLIPArguments(data_dirs, **{**sizes, **of_class[CXRCLIPArguments]}),
        StudyArguments(**of_class[StudyArguments]),
        ContrastArguments(**of_class[ContrastArguments]),
        TrainingArguments(str(output_dir), **{**defaults, **options}),
    )
