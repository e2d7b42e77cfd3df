"""What a CXR-CLIP can do while it trains, on studies that it is not trained on.

    validation = CXRCLIPValidation(collator, processor, weights, batch_size=64)
    validation(model)   # {"loss": 3.1, "retrieval_mean_rank": 41.2, ..., "zero_shot_auroc": 0.68}

The loss is the training's, of pictures and texts that are drawn the same each time and not altered. Retrieval is from
each study's first frontal picture to its whole report among those of the data set; zero-shot is the mean AUROC of
sentences worded as the training texts, of labels with enough positive and negative studies. Several data sets: each
with its number before the name, and `loss` the mean of theirs.
"""

from typing import NamedTuple

import numpy as np

from litegpt.datasets_scripts.image_labels import label_matrix, label_names
from litegpt.evaluation_scripts.ranking import usable_labels
from litegpt.evaluation_scripts.retrieval import has_reports
from litegpt.evaluation_scripts.zero_shot import macro_auroc, pair_vectors, wording_pairs
from litegpt.metrics.ranks import mean_rank, recall_at, retrieval_ranks
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts.contrastive_loss import LossWeights, contrastive_loss
from litegpt.train_scripts.cxr_clip_trainer import StudyCollator
from litegpt.train_scripts.studies import Studies

FEWEST = 10  # positive studies, and negative ones, of a label that is scored


class KnownLabels(NamedTuple):
    """The labels that have sentences and enough studies.

    Attributes:
        names: of the labels.
        truths: (studies, labels) 1, 0 or NaN.
        wording: of the sentences, `label_prompts.WORDINGS`: as the training texts are, of reports or of labels.
    """

    names: list[str]
    truths: np.ndarray
    wording: str

    @classmethod
    def of(cls, studies: Studies) -> "KnownLabels":
        rows = studies.first_rows()
        wording = "report" if has_reports(rows) else "plain"
        names = label_names(rows.features)
        names = [name for name, pair in zip(names, wording_pairs(names, wording), strict=True) if pair is not None]
        truths = label_matrix(rows, names)
        usable, _ = usable_labels(names, truths, FEWEST)
        return cls([names[place] for place in usable], truths[:, usable], wording)


class CXRCLIPValidation:
    """Figures of a model on the studies of a collator; the model must be in evaluation mode.

    Args:
        collator: of studies that are not augmented.
        weights: of the loss.
        batch_size: studies of which each is told from the others, as in training.
    """

    def __init__(self, collator: StudyCollator, processor: CXRCLIPProcessor, weights: LossWeights, batch_size: int):
        self.collator, self.processor, self.weights, self.batch_size = collator, processor, weights, batch_size
        self.texts = [studies.first(range(len(studies))).texts[0] for studies in collator.studies.studies]
        self.known = [KnownLabels.of(studies) for studies in collator.studies.studies]

    def __call__(self, model: CXRCLIPModel) -> dict[str, float]:
        figures: dict[str, float] = {}
        losses = []
        parts, starts = self.collator.studies.studies, self.collator.studies.starts
        for part in range(len(parts)):
            name = f"{part}_" if len(parts) > 1 else ""
            numbers = np.arange(starts[part], starts[part + 1])
            losses.append(self._loss(model, numbers))
            images, vectors = self._embed(model, numbers)
            texts = self.texts[part]
            if len(set(texts)) > 1:
                figures |= {f"{name}{key}": value for key, value in retrieval(images, vectors, texts).items()}
            if self.known[part].names:
                figures[f"{name}zero_shot_auroc"] = self._zero_shot(model, images, self.known[part])
        return {"loss": float(np.mean(losses)), **figures}

    def _loss(self, model: CXRCLIPModel, numbers: np.ndarray) -> float:
        rng, losses = np.random.default_rng(0), []
        batches = [numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size)]
        # Fewer studies are told apart more easily: a rest counts only where it is all there is.
        for batch in [batch for batch in batches if len(batch) == self.batch_size] or batches:
            inputs = self.collator.batch(batch, rng).to(model.device)
            outputs = model(**inputs)
            views = len(inputs["pixel_values"]) // len(batch)
            vectors = (v.unflatten(0, (views, -1)) for v in (outputs.image_embeds, outputs.text_embeds))
            losses.append(contrastive_loss(*vectors, outputs.logit_scale, self.weights, alone=True).loss.item())
        return float(np.mean(losses))

    def _embed(self, model: CXRCLIPModel, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, vectors = [], []
        for start in range(0, len(numbers), self.batch_size):
            batch = numbers[start : start + self.batch_size]
            outputs = model(**self.collator.batch(batch, None).to(model.device))
            images.append(outputs.image_embeds.float().cpu().numpy())
            vectors.append(outputs.text_embeds.float().cpu().numpy())
        return np.concatenate(images), np.concatenate(vectors)

    def _zero_shot(self, model: CXRCLIPModel, images: np.ndarray, known: KnownLabels) -> float:
        pairs = wording_pairs(known.names, known.wording)
        texts = list(dict.fromkeys(text for pair in pairs for side in pair for text in side))
        vectors = model(**self.processor(text=texts).to(model.device)).text_embeds.float().cpu().numpy()
        return macro_auroc(images, pair_vectors(pairs, dict(zip(texts, vectors, strict=True))), known.truths)


def retrieval(images: np.ndarray, vectors: np.ndarray, texts: list[str]) -> dict[str, float]:
    """From each image to its text among the unique ones."""
    found = retrieval_ranks(images, vectors, texts).image_to_text
    return {
        "retrieval_mean_rank": float(mean_rank(found)),
        "retrieval_r_at_10": float(recall_at(found, 10)),
        "retrieval_texts": float(len(set(texts))),
    }
