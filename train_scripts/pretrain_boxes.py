"""Short pre-training of a checkpoint's towers on a data set's boxes and labels.

    litegpt pretrain-boxes --config tiny_towers --model_name_or_path outputs/tiny/new \\
        --data_dir outputs/demo/phantoms --output_dir outputs/tiny/towers

Fresh towers learn to localise only so: a language model after them gives too weak a signal in minutes. Real runs
start from BiomedCLIP and PubMedCLIP instead, or continue from them with this program. It is supervision by boxes, not
CLIP pre-training: every patch token says which findings' boxes it lies in (a sigmoid for each label) and where the
corners of the smallest of them are; the largest of the patches' logits is the image's label. These heads are thrown
away. The checkpoint's detector, where it has one (`litegpt new --detector`) or gets one here (`--detector`), learns
the same boxes from what the towers give and stays: it answers beside the language model, which may be told of its
boxes (`--num_candidate_tokens`). With `--patch_heads false` the towers learn for it, which from a hundred boxes is
better; with `--freeze_towers` it learns alone. A radiograph with labels but no box does not say
where, and is left out.

`--labels_only` leaves out where: the image's labels alone teach the towers, also those that no box shows, and the mean
of the patches' logits is the image's. `--pseudo_boxes` takes boxes that a classifier's maps drew. The same command
resumes where an interrupted run stopped.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.image_labels import label_matrix
from litegpt.datasets_scripts.pseudo_boxes import coverage_text, with_pseudo_boxes
from litegpt.datasets_scripts.rows import check_labels, load_rows
from litegpt.modeling_litegpt import LiteGPTModel
from litegpt.modeling_litegpt.added_detector import add_detector
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.configuration_litegpt import tower_grid, tower_width
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_litegpt.modeling_litegpt import patch_tokens, tower_output
from litegpt.train_scripts.arguments import TowerArguments
from litegpt.train_scripts.dense_box_loss import detector_loss
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.tower_tasks.detection import Detection, boxes_are_known
from litegpt.train_scripts.training_parser import TrainingParser
from litegpt.train_scripts.views import Movement

INSIDE_WEIGHT = 4.0  # patches inside a box are rare
OFFSET_SCALE = 4.0  # offsets are a quarter of the image at most, mostly


class TowerTrainingModel(nn.Module):
    """The towers, each with a head that reads labels and a box out of every patch token; and the model's detector.

    Towers whose weights are frozen compute as in evaluation.

    Args:
        patch_heads: False: no such heads.
    """

    def __init__(self, model: LiteGPTModel, num_labels: int, patch_heads: bool = True):
        super().__init__()
        self.towers = nn.ModuleList(model.towers)
        self.heads = nn.ModuleList(
            nn.Linear(tower_width(tower.config), num_labels + 4) for tower in model.towers if patch_heads
        )
        self.detector = model.detector
        self.num_labels = num_labels

    def train(self, mode: bool = True) -> "TowerTrainingModel":
        super().train(mode)
        for tower in self.towers:
            tower.train(mode and any(parameter.requires_grad for parameter in tower.parameters()))
        return self

    def forward(
        self,
        pixel_values: list[torch.Tensor],
        findings: list[list[dict]],
        known: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        loss = torch.zeros((), device=pixel_values[0].device)
        features = [
            patch_tokens(tower_output(tower, pixels).last_hidden_state)
            for tower, pixels in zip(self.towers, pixel_values, strict=True)
        ]
        for tower, head, of_tower in zip(self.towers, self.heads, features, strict=False):  # there may be no heads
            output = head(of_tower)
            if labels is None:
                loss = loss + patch_loss(output, findings, tower_grid(tower.config), self.num_labels, known)
            else:
                # The mean of the patches' logits: each of them learns from every label.
                loss = loss + functional.binary_cross_entropy_with_logits(output[..., :-4].mean(dim=1), labels)
        if self.detector is not None and labels is None:
            patch_features = torch.cat(features, dim=1)
            if len(self.heads):  # the towers learn for these: for both they would be worse for the answers
                patch_features = patch_features.detach()
            loss = loss + detector_loss(self.detector, patch_features, findings, known)
        return {"loss": loss}


def patch_loss(
    output: torch.Tensor,
    findings: list[list[dict]],
    side: int,
    num_labels: int,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """Labels of patches and of the image, and box corners, for one tower.

    Args:
        output: (images, side * side, labels + 4).
        findings: for each image `{"label": index, "box": xyxy in [0, 1]}`.
        known: (images, labels) 1 or 0, of which labels the boxes are known; None: of all.
    """
    logits, corners = output[..., :num_labels], output[..., num_labels:]
    inside, boxes = patch_targets(findings, side, num_labels)
    inside, boxes = inside.to(output.device), boxes.to(output.device)
    per_patch = functional.binary_cross_entropy_with_logits(
        logits,
        inside,
        None if known is None else known[:, None].to(logits),
        pos_weight=torch.tensor(INSIDE_WEIGHT, device=output.device),
    )
    # A smooth maximum over the patches; log 4 as if a finding covered four of them.
    image_logits = logits.logsumexp(dim=1) - math.log(4)
    per_image = functional.binary_cross_entropy_with_logits(
        image_logits, inside.amax(dim=1), None if known is None else known.to(logits)
    )
    loss = num_labels * per_patch + 0.25 * per_image
    in_a_box = boxes[..., 2] > 0
    if in_a_box.any():
        centres = (torch.arange(side, device=output.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        centre = torch.stack([x, y, x, y], dim=-1).reshape(side * side, 4)
        offsets = OFFSET_SCALE * (boxes - centre)
        loss = loss + 2 * (corners[in_a_box] - offsets[in_a_box]).abs().mean()
    return loss


def patch_targets(findings: list[list[dict]], side: int, num_labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which boxes a patch's centre lies in, (images, patches, labels), and the smallest of them, (images, patches, 4).

    A box without any patch centre takes the patch in which its own centre lies. Patches outside all boxes have zeros.
    """
    centres = (np.arange(side) + 0.5) / side
    inside = torch.zeros(len(findings), side, side, num_labels)
    boxes = torch.zeros(len(findings), side, side, 4)
    for image, image_findings in enumerate(findings):
        # The largest first, so that the smallest stays.
        for finding in sorted(
            image_findings, key=lambda f: -(f["box"][2] - f["box"][0]) * (f["box"][3] - f["box"][1])
        ):
            x1, y1, x2, y2 = finding["box"]
            columns, rows = (centres >= x1) & (centres <= x2), (centres >= y1) & (centres <= y2)
            columns[min(side - 1, int(side * (x1 + x2) / 2))] = True
            rows[min(side - 1, int(side * (y1 + y2) / 2))] = True
            patches = torch.from_numpy(rows[:, None] & columns[None, :])
            inside[image, ..., finding["label"]][patches] = 1
            boxes[image][patches] = torch.tensor(finding["box"], dtype=torch.float32)
    return inside.flatten(1, 2), boxes.flatten(1, 2)


class RowIndices(Dataset):
    """Row numbers; the collator turns them into batches. Rows with findings are repeated."""

    def __init__(self, findings: Sequence[Any], repeat_findings: int):
        self.rows = [row for row, found in enumerate(findings) for _ in range(repeat_findings if found else 1)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return self.rows[index]


class MovedRadiographs:
    """Row numbers -> a batch of randomly moved radiographs with their boxes, and what else is known of each row.

    Args:
        arguments: how far they are moved.
        of_rows: by name (rows, labels) 1 or 0: "known", of which labels the boxes are known; "labels" of whole
            radiographs.
    """

    def __init__(
        self,
        store: RadiographStore,
        findings: list[list[dict]],
        arguments: TowerArguments,
        of_rows: dict[str, torch.Tensor],
    ):
        self.store, self.findings, self.of_rows = store, findings, of_rows
        self.strength, self.max_gamma = arguments.view_strength, arguments.max_gamma

    def __call__(self, rows: list[int]) -> dict[str, Any]:
        # Seeded from torch, whose random state the trainer restores when a run is resumed.
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        movements = [Movement.random(rng, self.strength, self.max_gamma) for _ in rows]
        return {
            "pixel_values": self.store.pixel_values(rows, movements),
            "findings": [movement.findings(self.findings[row]) for row, movement in zip(rows, movements, strict=True)],
            **{name: values[rows] for name, values in self.of_rows.items()},
        }


@program
def main(arguments: TowerArguments, training_arguments: TrainingArguments) -> None:
    with refuse_bad_input():
        model, processor = load_checkpoint(arguments.model_name_or_path)
        if arguments.detector and arguments.labels_only:
            raise ValueError("detector: of labels alone it learns nothing.")
        add_detector(model, processor, arguments)
        for tower in model.model.towers:
            tower.requires_grad_(not arguments.freeze_towers)
        patch_heads = arguments.patch_heads and not arguments.freeze_towers
        if not patch_heads and (arguments.labels_only or model.model.detector is None):
            raise ValueError(
                "patch_heads, freeze_towers: without such heads a detector is all that learns, and that from boxes."
            )
    cache_dir = arguments.training_cache_dir or f"{training_arguments.output_dir}/cache"
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_arguments.main_process_first(desc="preparing data"):
        rows = load_rows(arguments.data_dir, arguments.train_split, arguments.cache_dir, arguments.num_proc)
        check_labels(rows, processor)
        has_detector = model.model.detector is not None and not arguments.labels_only
        parts = ["towers"] * (not arguments.freeze_towers) + ["detector"] * has_detector
        trained = ", ".join(parts)
        if arguments.pseudo_boxes is not None:
            rows, covered = with_pseudo_boxes(rows, arguments.pseudo_boxes)
            print(f"{arguments.pseudo_boxes}: {coverage_text(covered)}")
            trained += "; on boxes that a classifier's maps drew"
        if not arguments.labels_only and not (located := boxes_are_known(rows)).all():
            print(f"{(~located).sum():,} of {len(rows):,} radiographs have labels but no box, and are left out.")
            rows = rows.select(np.flatnonzero(located))
        entry = training_entry("pretrain_boxes.py", arguments.data_dir, len(rows), [], trained, training_arguments)
        store = RadiographStore(rows, processor.tower_image_processors, cache_dir)
    findings = rows["findings"][:]
    shown = findings  # rows with findings are shown more often
    if arguments.labels_only:
        of_rows = {"labels": torch.from_numpy(label_matrix(rows, processor.finding_labels)).nan_to_num(0)}
        shown = of_rows["labels"].bool().any(dim=1).tolist()
    else:
        truths = Detection(processor.finding_labels, max(model.config.tower_grids)).truths(rows)
        of_rows = {"known": torch.from_numpy(truths.known).float()}

    training_arguments.remove_unused_columns = False
    # In half precision small steps are lost, and float16's weights are ruined: what is trained is in float32.
    trained_parts = [part for part in (*model.model.towers, model.model.detector) if part is not None]
    stored = [(part, next(part.parameters()).dtype) for part in trained_parts]
    for part in trained_parts:
        part.float()
    trainer = Trainer(
        model=TowerTrainingModel(model.model, len(processor.finding_labels), patch_heads),
        args=training_arguments,
        train_dataset=RowIndices(shown, arguments.repeat_findings),
        data_collator=MovedRadiographs(store, findings, arguments, of_rows),
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_arguments))
    add_training(model.config, entry, trainer.state.global_step)
    for part, dtype in stored:
        part.to(dtype)
    save_checkpoint(model, processor, f"{training_arguments.output_dir}/checkpoint")


def argument_parser() -> TrainingParser:
    return TrainingParser((TowerArguments, TrainingArguments), description=__doc__)


if __name__ == "__main__":
    main(*argument_parser().parse())
