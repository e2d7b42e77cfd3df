"""Answers to validation radiographs while a model is trained: pictures with boxes, and their scores."""

from collections.abc import Sequence

from datasets import Dataset
from transformers import Trainer, TrainerCallback

from processing.processing_litegpt import LiteGPTProcessor


class ValidationAnswers(TrainerCallback):
    def __init__(self, trainer: Trainer, rows: Dataset, processor: LiteGPTProcessor, tasks: Sequence[str]):
        self.trainer, self.rows, self.processor, self.tasks = trainer, rows, processor, tasks
