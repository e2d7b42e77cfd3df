"""Answers to validation radiographs while a model is trained: their scores, and pictures with the boxes drawn.

Tasks about words are not answered here: of these the validation loss alone tells how well they are learned.
`OUTPUT_DIR/validation` has `step-N.jsonl` (lines as in the predictions file, each with the true answer) and
`step-N.png`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from peft import PeftModel
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from litegpt.common.files import write_text
from litegpt.common.overlay import contact_sheet, panel, save
from litegpt.evaluation_scripts.figures import task_statistics
from litegpt.evaluation_scripts.predictions import answer_lines
from litegpt.evaluation_scripts.questions import label_names, question, true_answer
from litegpt.evaluation_scripts.task_scores import task_scores
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.tasks import LABEL_TASKS, TASKS

THRESHOLDS = ("0.3", "0.5")
WITH_FINDINGS, WITHOUT_FINDINGS = 6, 2  # radiographs in the picture


class ValidationAnswers(TrainerCallback):
    """After each evaluation the model answers to `rows`, greedily; a process of several answers its share.

    Decoding is not constrained: the share of malformed answers tells whether the model has learned the language.

    The scores go into the trainer's log, and so to every `report_to`; `metric_for_best_model` may name one of them.
    For each task: `eval_TASK_finding_f1`, `eval_TASK_micro_f1`, `eval_TASK_malformed` (a share), for tasks with boxes
    `eval_TASK_accuracy_at_iou_0.3` and `_0.5`. Where weights are sharded over processes (FSDP, ZeRO-3), only the
    loss is shown.

    Args:
        trainer: of the model.
        rows: radiographs that are not trained on.
        tasks: what is asked, where a row tells the answer; those about words are left out.
    """

    def __init__(self, trainer: Trainer, rows: Dataset, processor: LiteGPTProcessor, tasks: Sequence[str]):
        self.trainer, self.rows, self.processor = trainer, rows, processor
        self.labels = label_names(rows)
        left_out = [task for task in tasks if task not in LABEL_TASKS]
        tasks = [task for task in tasks if task in LABEL_TASKS]
        if left_out and trainer.is_world_process_zero():
            asked = ", ".join(tasks) or "nothing"
            print(f"Validation answers {asked}; of {', '.join(left_out)} it shows the loss alone.")
        truths = list(rows.remove_columns("image"))
        answers = {task: [true_answer(row, task, self.labels) for row in truths] for task in tasks}
        # By task: the rows that tell the answer.
        self.known = {
            task: [index for index, text in enumerate(texts) if text is not None] for task, texts in answers.items()
        }
        self.truths, self.answers = truths, answers
        # What is twice as long as every true answer is wrong anyway, and a model that knows nothing yet never stops.
        ids = processor.tokenizer([text or "" for texts in answers.values() for text in texts] or [""])["input_ids"]
        self.max_new_tokens = 2 * max(len(tokens) for tokens in ids)
        if self._weights_are_sharded() and trainer.is_world_process_zero():
            print("Validation shows the loss and no answers: the weights are sharded over processes.")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if self._weights_are_sharded() or not self.known:
            return
        lines = self._answer_lines()
        scores: list[dict[str, float] | None] = [None]
        if state.is_world_process_zero:
            scores = [validation_scores(lines, self.truths, self.labels)]
            self._write(lines, state.global_step)
        broadcast_object_list(scores)
        metrics.update(scores[0])
        self.trainer.log(dict(scores[0]))

    def _weights_are_sharded(self) -> bool:
        plugin = self.trainer.accelerator.state.deepspeed_plugin
        return self.trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)

    def _answer_lines(self) -> dict[str, dict[int, dict[str, Any]]]:
        """{task: {row number: line of the predictions file}} of all processes."""
        accelerator, args = self.trainer.accelerator, self.trainer.args
        model = accelerator.unwrap_model(self.trainer.model)
        if isinstance(model, PeftModel):
            model = model.get_base_model()  # it has the adapter's layers; the pipeline knows its class
        was_training = model.training
        pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=self.processor, device=args.device)
        own = []
        with accelerator.autocast():  # weights of several dtypes meet
            for task, known in self.known.items():
                indices = known[accelerator.process_index :: accelerator.num_processes]
                if not indices:
                    continue
                lines = answer_lines(
                    pipe,
                    self.rows.select(indices),
                    task,
                    batch_size=args.per_device_eval_batch_size,
                    max_new_tokens=self.max_new_tokens,
                    constrained=False,
                )
                own += [(task, index, line) for index, line in zip(indices, lines, strict=True)]
        model.train(was_training)
        by_task: dict[str, dict[int, dict[str, Any]]] = {task: {} for task in self.known}
        for task, index, line in gather_object(own):
            by_task[task][index] = line
        return by_task

    def _write(self, lines: dict[str, dict[int, dict[str, Any]]], step: int) -> None:
        path = Path(self.trainer.args.output_dir, "validation", f"step-{step}")
        text = "".join(
            json.dumps({**line, "true_answer": self.answers[task][index]}) + "\n"
            for task, task_lines in lines.items()
            for index, line in sorted(task_lines.items())
        )
        picture = self._picture(lines)
        try:
            write_text(path.with_suffix(".jsonl"), text)
            save(picture, path.with_suffix(".png"))
        except OSError as error:  # no reason to end a run
            print(f"The answers of step {step} could not be written: {error}")
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image("validation", np.asarray(picture), step, dataformats="HWC")

    def _picture(self, lines: dict[str, dict[int, dict[str, Any]]]) -> Image.Image:
        """Some radiographs with findings, and a few without, with what is true and what was answered."""
        with_findings = [index for index, row in enumerate(self.truths) if row["findings"]]
        without = [index for index, row in enumerate(self.truths) if not row["findings"]]
        chosen = with_findings[:WITH_FINDINGS] + without[:WITHOUT_FINDINGS]
        panels = [
            panel(
                self.rows[index]["image"],
                self.truths[index],
                {task: task_lines[index] for task, task_lines in lines.items() if index in task_lines},
                self.labels,
            )
            for index in chosen
        ]
        return contact_sheet(panels)


def validation_scores(
    lines: dict[str, dict[int, dict[str, Any]]], truths: Sequence[dict[str, Any]], labels: dict[str, list[str]]
) -> dict[str, float]:
    """The scores that `ValidationAnswers` logs.

    Args:
        lines: {task: {row number: line of the predictions file}}.
        truths: all rows.
        labels: of findings and diagnoses, as `label_names` gives them.
    """
    scores = {}
    for task, task_lines in lines.items():
        if not task_lines:
            continue
        predictions = list(task_lines.values())
        asked = question(task, [truths[index] for index in task_lines], labels)
        result = task_scores(task_statistics(asked, predictions, labels))
        scores[f"eval_{task}_finding_f1"] = result["classification"]["finding"]["f1"]
        scores[f"eval_{task}_micro_f1"] = result["classification"]["micro"]["f1"]
        malformed = [prediction["malformed"] is not None for prediction in predictions]
        scores[f"eval_{task}_malformed"] = sum(malformed) / len(malformed)
        if TASKS[task].kind.has_boxes and result["localization"]["num_boxes"]:
            for threshold in THRESHOLDS:
                accuracy = result["localization"]["accuracy_at_iou"][threshold]
                scores[f"eval_{task}_accuracy_at_iou_{threshold}"] = accuracy
    return scores
