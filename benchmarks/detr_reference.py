"""A detector of the library on LiteGPT's own data and CPU time: what the language model costs or gains in boxes.

    python benchmarks/detr_reference.py --checkpoint outputs/demo/checkpoint --data_dir outputs/demo/phantoms \\
        --test_dir outputs/fresh --seconds 600 --output_dir outputs/detr

In: a data set, a LiteGPT checkpoint for its labels and how its first tower sees a radiograph, and CPU seconds (of the
process) to train in. Out: an RT-DETR from random weights (Zhao et al., arXiv 2304.08069; `transformers`' own network
and losses) of about the tiny LiteGPT's size, trained on the same radiographs, moved in the same way, and its figures
on the test split with 95 % intervals, as `detection_figures.py` has them for LiteGPT. `--output_dir` keeps its boxes.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig, set_seed

from litegpt.benchmarks.detection_figures import COLUMNS, TASK
from litegpt.common.files import write_text
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.box_sources import SourceBoxes
from litegpt.evaluation_scripts.figures import row_patients
from litegpt.evaluation_scripts.questions import label_names, question, true_boxes
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement, views_of

BATCH, VIEWS, MOST_BOXES = 16, 3, 50


def small_detr(labels: list[str]) -> RTDetrForObjectDetection:
    """1.1 million parameters: a ResNet of four stages, two of whose maps go through one layer, 30 queries."""
    backbone = RTDetrResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 128], depths=[1, 1, 1, 1], layer_type="basic"
    )
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[64, 128, 128],
        encoder_hidden_dim=64,
        encoder_ffn_dim=192,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=64,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=192,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=30,
        num_denoising=30,
        id2label=dict(enumerate(labels)),
    )
    return RTDetrForObjectDetection(config)


def targets(findings: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Labels and boxes as the library's DETRs take them: centre, width and height in [0, 1]."""
    boxes = torch.tensor([finding["box"] for finding in findings], dtype=torch.float32).reshape(-1, 4)
    centred = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
    return {"class_labels": torch.tensor([f["label"] for f in findings], dtype=torch.long), "boxes": centred}


def train(model: RTDetrForObjectDetection, rows: Dataset, store: RadiographStore, seconds: float, seed: int) -> int:
    """Trains for so many CPU seconds, the rate falling by a cosine of them; returns the steps."""
    findings = rows["findings"][:]
    # Two thirds of the radiographs that are shown have findings, as in the tiny towers' recipe.
    views = [view for view in views_of(rows, VIEWS, seed) for _ in range(2 if findings[view[0]] else 1)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rng, start, steps = np.random.default_rng(seed), time.process_time(), 0
    model.train()
    while (used := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (steps + 1) / 50) * (0.05 + 0.95 * (1 + np.cos(np.pi * used)) / 2)
        chosen = [views[number] for number in rng.integers(len(views), size=BATCH)]
        numbers, movements = [row for row, _ in chosen], [movement for _, movement in chosen]
        (pixels,) = store.pixel_values(numbers, movements)
        moved = [targets(movement.findings(findings[row])) for row, movement in chosen]
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=moved).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if steps % 100 == 0:
            print(f"{steps} steps, {used:.0%} of the time", flush=True)
    return steps


@torch.no_grad()
def detections(model: RTDetrForObjectDetection, store: RadiographStore, number: int) -> list[list[dict[str, Any]]]:
    """For each radiograph its `MOST_BOXES` best boxes."""
    model.eval()
    found, labels = [], model.config.id2label
    for start in range(0, number, BATCH):
        rows = range(start, min(number, start + BATCH))
        output = model(pixel_values=store.pixel_values(rows, [Movement()] * len(rows))[0])
        for logits, boxes in zip(output.logits.sigmoid(), output.pred_boxes, strict=True):
            centre, half = boxes[:, :2], boxes[:, 2:] / 2
            corners = torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)
            best = logits.flatten().topk(MOST_BOXES)
            found.append(
                [
                    {
                        "label": labels[place % len(labels)],
                        "box": corners[place // len(labels)].tolist(),
                        "score": score,
                    }
                    for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ]
            )
    return found


def main(options: argparse.Namespace) -> None:
    set_seed(options.seed)
    processor = load_processor(options.checkpoint)
    rows = load_rows(options.data_dir, options.train_split, options.cache_dir, num_proc=1)
    test = load_rows(options.test_dir, "test", options.cache_dir, num_proc=1)
    towers = processor.tower_image_processors[:1]
    model = small_detr(processor.finding_labels)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    steps = train(model, rows, RadiographStore(rows, towers, options.cache_dir), options.seconds, options.seed)
    found = detections(model, RadiographStore(test, towers, options.cache_dir), len(test))
    write_text(Path(options.output_dir, f"detr-{options.seed}.json"), json.dumps(found))
    asked = question(TASK, list(test.remove_columns("image")), label_names(test))
    boxes = SourceBoxes([found[i] for i in asked.images], true_boxes(asked.rows, processor.finding_labels), {})
    points, intervals = figures_and_intervals(boxes.figures, len(asked.images), row_patients(asked.rows))
    print(f"RT-DETR, seed {options.seed}, {steps} steps in {options.seconds:.0f} CPU seconds:")
    for name, path in COLUMNS.items():
        print(f"{name} {points[path]:.3f} [{', '.join(f'{end:.3f}' for end in intervals[path])}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/demo/checkpoint")
    parser.add_argument("--data_dir", default="outputs/demo/phantoms")
    parser.add_argument("--train_split", default="train[:-300]")
    parser.add_argument("--test_dir", default="outputs/demo/phantoms")
    parser.add_argument("--cache_dir")
    parser.add_argument("--output_dir", default="outputs/detr")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
