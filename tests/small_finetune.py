"""Drawn radiographs with a bright square in half of them, as labels, boxes or masks, and a fine-tuning on them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from litegpt.datasets_scripts.annotations import row_features
from litegpt.train_scripts import finetune_tower
from litegpt.train_scripts.arguments import FinetuneArguments

SIDE = 32
FINDINGS, DIAGNOSES = ["Mass", "Nodule"], ["Tumor", "No finding"]
VIT = {
    "model_type": "vit",
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
}


def entry(number: int, prefix: str = "", **values: Any) -> dict[str, Any]:
    """A radiograph of noise; the even ones have a square, half of these a large one ("Mass"), half a small one."""
    rng = np.random.default_rng([number, len(prefix)])
    pixels = rng.integers(40, 90, (SIDE, SIDE)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    findings = []
    if number % 2 == 0:
        label = number // 2 % 2
        size = (14, 8)[label]
        x, y = rng.integers(0, SIDE - size, 2)
        pixels[y : y + size, x : x + size] += 120
        mask[y : y + size, x : x + size] = 255
        box = [float(v) / SIDE for v in (x, y, x + size, y + size)]
        findings = [{"label": label, "box": box, "readers": 1}]
    return {
        "image_id": f"{prefix}image{number}",
        "image": {"bytes": png(pixels), "path": None},
        "width": SIDE,
        "height": SIDE,
        "findings": findings,
        "diagnoses": [0] if findings else [1],
        "view": "PA",
        "patient_id": f"{prefix}patient{number}",
        "mask": {"bytes": png(mask), "path": None} if findings else None,
        **values,
    }


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_data(
    folder: Path, sizes: dict[str, int], columns: tuple[str, ...] = ("patient_id",), **changed: dict[int, dict]
) -> str:
    """A prepared folder; `changed` are other values of some rows of a split, by their number."""
    entries = {
        split: [entry(number, split, **changed.get(split, {}).get(number, {})) for number in range(count)]
        for split, count in sizes.items()
    }
    return write_entries(folder, entries, columns)


def write_entries(
    folder: Path,
    entries: dict[str, list[dict[str, Any]]],
    columns: tuple[str, ...] = ("patient_id",),
    diagnoses: list[str] = DIAGNOSES,
) -> str:
    """A prepared folder with the entries of each split."""
    (folder / "data").mkdir(parents=True)
    features = row_features(FINDINGS, diagnoses, columns)
    for split, of_split in entries.items():
        rows = [{name: values[name] for name in features} for values in of_split]
        table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(f"---\npretty_name: {folder.name}\nlicense: other\n---\n")
    return str(folder)


def finetune(output_dir: Path | str, data_dir: str, task: str = "classification", **options: Any) -> None:
    """Runs `finetune_tower.main`; `options` are those of either of its argument classes."""
    ours = {name: options.pop(name) for name in list(options) if name in FinetuneArguments.__dataclass_fields__}
    if "tower" not in ours:
        ours.setdefault("tower_config", VIT)
    defaults = {"max_steps": 4, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "logging_steps": 1}
    defaults |= {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 100, "save_steps": 100}
    defaults |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "lr_scheduler_type": "cosine"}
    finetune_tower.main(
        FinetuneArguments(data_dir, task=task, **{"min_crop_area": 0.6, "min_positives": 3, **ours}),
        finetune_tower.FinetuneTrainingArguments(str(output_dir), **{**defaults, **options}),
    )
