"""Answers that are sampled while a model is reinforced: always in the answer language, with the scores of their boxes.

    rollouts = Rollouts(processor, with_scores=True)
    GRPOTrainer(..., rollout_func=rollouts)   # prompts of a batch in; tokens, their probabilities and scores out
    trainer.add_callback(RolloutDrawings(trainer, rollouts, 4))   # into TensorBoard: the last ones, in words and drawn

TRL's own generation takes no logits processor, so that a `rollout_func` is the way to constrain it. TRL calls that
experimental: `tests/train_scripts/test_grpo.py` says first where a release changes it.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from trl import GRPOTrainer

from litegpt.common.overlay import contact_sheet, panel
from litegpt.processing.answers import AnswerError
from litegpt.processing.box_scores import Answer, scored_findings
from litegpt.processing.constrained_decoding import AnswerLogitsProcessor
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.tasks import FINDINGS
from litegpt.train_scripts.prompts import ShownRadiograph


class Rollout(NamedTuple):
    """An answer that was sampled; `findings`: {"label", "box", "score"}, none of a malformed answer.

    A score is None where nobody asks for scores.
    """

    radiograph: ShownRadiograph
    text: str
    findings: list[dict[str, Any]]


class Rollouts:
    """TRL's `rollout_func`: one sampled answer to each prompt; a prompt that stands several times gets several.

    The towers see each radiograph once, however many answers are sampled to it.

    Args:
        processor: packs the pixels of two towers (`pack_pixel_values`).
        with_scores: of boxes, which take about as long as the sampling itself.

    Attributes:
        last: the rollouts of the last batch of this process.
    """

    def __init__(self, processor: LiteGPTProcessor, with_scores: bool):
        self.processor, self.with_scores = processor, with_scores
        self.last: list[Rollout] = []

    def __call__(self, prompts: list[list[dict[str, Any]]], trainer: GRPOTrainer) -> dict[str, list]:
        """Per prompt `prompt_ids`, `completion_ids`, the tokens' `logprobs` and, asked for, the boxes' `scores`.

        Probabilities are those among the tokens that the grammar allows, without the sampling's temperature, as the
        pipeline has them.

        Args:
            prompts: conversations whose first item is a `ShownRadiograph`, the same object wherever it stands.
            trainer: whose model answers.
        """
        radiographs = [prompt[0]["content"][0]["image"] for prompt in prompts]
        texts = [self.processor.apply_chat_template(prompt, add_generation_prompt=True) for prompt in prompts]
        keys = [(id(radiograph), text) for radiograph, text in zip(radiographs, texts, strict=True)]
        distinct = {key: number for number, key in reversed(list(enumerate(keys)))}
        order = {key: place for place, key in enumerate(distinct)}
        inputs = self.processor(
            images=[radiographs[number] for number in distinct.values()],
            text=[texts[number] for number in distinct.values()],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        ).to(trainer.accelerator.device)
        rows = torch.tensor([order[key] for key in keys], device=trainer.accelerator.device)
        model = trainer.accelerator.unwrap_model(trainer.model)
        # Of an adapted model the base has the adapter's layers, and takes features.
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        was_training = model.training
        model.eval()  # no dropout, no checkpointing of activations
        with torch.no_grad(), trainer.accelerator.autocast():  # weights of several dtypes meet
            sampled = self._sample(base, inputs, rows, trainer)
            answers = self._answers(base, *sampled)
        model.train(was_training)
        new_tokens, watcher = sampled
        eos = self.processor.tokenizer.eos_token_id
        lengths = [tokens.index(eos) + 1 if eos in tokens else len(tokens) for tokens in new_tokens.tolist()]
        self.last = [Rollout(r, a.text, self._scored(a)) for r, a in zip(radiographs, answers, strict=True)]
        logprobs = watcher.chosen(new_tokens).log()
        scores = {}
        if self.with_scores:
            scores["scores"] = [[finding["score"] for finding in rollout.findings] for rollout in self.last]
        prompt_ids = [ids[mask.bool()].tolist() for ids, mask in zip(*map(inputs.get, NAMES), strict=True)]
        return {
            "prompt_ids": [prompt_ids[row] for row in rows.tolist()],
            "completion_ids": [tokens[:n].tolist() for tokens, n in zip(new_tokens, lengths, strict=True)],
            "logprobs": [values[:n].tolist() for values, n in zip(logprobs, lengths, strict=True)],
            **scores,
        }

    def _sample(
        self, model: PreTrainedModel, inputs: Any, rows: torch.Tensor, trainer: GRPOTrainer
    ) -> tuple[torch.Tensor, "ProbabilityWatcher"]:
        """(answers, new tokens) on the CPU, and the probabilities of what could have stood in their places."""
        grammar = self.processor.answer_logits_processor(trainer.max_completion_length)
        widest = max(map(len, self.processor.answer_grammar.allowed))
        watcher = ProbabilityWatcher(grammar, widest)
        features = model.get_patch_features(inputs["pixel_values"])
        sequences = model.generate(
            input_ids=inputs["input_ids"][rows],
            attention_mask=inputs["attention_mask"][rows],
            patch_features=features[rows],
            generation_config=trainer.generation_config,
            logits_processor=LogitsProcessorList([watcher]),
        )
        return sequences[:, inputs["input_ids"].shape[1] :].cpu(), watcher

    def _answers(
        self, model: PreTrainedModel, new_tokens: torch.Tensor, watcher: "ProbabilityWatcher"
    ) -> list[Answer]:
        """What each row's tokens say, with their probabilities where scores are asked for."""
        if not self.with_scores:
            texts = self.processor.batch_decode(new_tokens, skip_special_tokens=True)
            return [Answer(text.removeprefix(" "), [], []) for text in texts]
        pipe = ChestXrayFindingsPipeline(model=model, processor=self.processor, device=model.device)
        candidates, probabilities = torch.stack(watcher.candidates, 1), torch.stack(watcher.probabilities, 1)
        outputs = zip(new_tokens, watcher.chosen(new_tokens), candidates, probabilities, strict=True)
        return [
            pipe.scored_answers(
                [
                    {
                        "task": FINDINGS.name,
                        "new_tokens": tokens,
                        "token_probabilities": chosen,
                        "candidates": considered[None],
                        "candidate_probabilities": values[None],
                        "label_probabilities": {},
                    }
                ]
            )[FINDINGS.name]
            for tokens, chosen, considered, values in outputs
        ]

    def _scored(self, answer: Answer) -> list[dict[str, Any]]:
        labels, temperature = self.processor.finding_labels, self.processor.score_temperatures[FINDINGS.name]
        try:
            # Of the boxes as they are written: those are what was sampled.
            scored = list(scored_findings(answer, labels, temperature, written_boxes=True))
        except AnswerError:  # its rewards say so
            return []
        return [{"label": finding.label, "box": list(finding.box), "score": score} for finding, score in scored]


NAMES = ("input_ids", "attention_mask")


class ProbabilityWatcher(LogitsProcessor):
    """Constrains what is sampled, and keeps the probabilities that it is sampled with, before any temperature.

    Args:
        grammar: which tokens may follow.
        widest: the most that may.

    Attributes:
        candidates, probabilities: of each place (rows, widest), on the CPU.
    """

    def __init__(self, grammar: AnswerLogitsProcessor, widest: int):
        self._grammar, self._widest = grammar, widest
        self.candidates: list[torch.Tensor] = []
        self.probabilities: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        allowed = self._grammar(input_ids, scores)
        values, tokens = allowed.float().softmax(-1).topk(min(self._widest, allowed.shape[-1]))
        self.candidates.append(tokens.cpu())
        self.probabilities.append(values.cpu())
        return allowed

    def chosen(self, new_tokens: torch.Tensor) -> torch.Tensor:
        """(rows, new tokens) the probabilities of the tokens that were taken; 0 for padding after the end."""
        is_taken = torch.stack(self.candidates, 1) == new_tokens[..., None]
        return (torch.stack(self.probabilities, 1) * is_taken).sum(-1)


class RolloutDrawings(TrainerCallback):
    """Shows the last rollouts in TensorBoard with each line of the log: in words, and as true and answered boxes.

    Args:
        trainer: of the model.
        rollouts: of its answers.
        count: how many radiographs are shown, each with one answer.
    """

    def __init__(self, trainer: GRPOTrainer, rollouts: Rollouts, count: int):
        self.trainer, self.rollouts, self.count = trainer, rollouts, count

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        chosen = list({id(rollout.radiograph): rollout for rollout in self.rollouts.last}.values())[: self.count]
        writers = [c.tb_writer for c in self.trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback)]
        for writer in writers:
            if writer is None or not chosen:
                continue
            words = "\n\n".join(map(_words, chosen))
            writer.add_text("rollouts", words, state.global_step)
            picture = contact_sheet([drawn(rollout, self.rollouts.processor.finding_labels) for rollout in chosen])
            writer.add_image("rollouts", np.asarray(picture), state.global_step, dataformats="HWC")


def drawn(rollout: Rollout, labels: list[str]) -> Any:
    """A radiograph as the first tower saw it, with true boxes in green and answered ones in yellow."""
    true = [{**finding, "label": labels.index(finding["label"])} for finding in rollout.radiograph.findings]
    picture = next(iter(rollout.radiograph.pictures.values()))
    line = {"findings": rollout.findings, "malformed": None}
    return panel(picture, {"findings": true}, {"identify": line}, {FINDINGS.name: labels})


def _words(rollout: Rollout) -> str:
    """The answer, and below it the scores of its boxes, where there are any."""
    scores = [finding["score"] for finding in rollout.findings if finding["score"] is not None]
    return f"{rollout.text}  \nscores: {', '.join(f'{score:.2f}' for score in scores)}" if scores else rollout.text
