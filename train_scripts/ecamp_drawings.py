"""Pictures and words of an ECAMP while it trains: what it sees, what it draws, which masked words it says.

    drawing = drawn(model, batch, mean=0.47, std=0.30)     # a picture: a row for each radiograph
    said = said_words(model, batch, tokenizer)             # ["[there is](there was) [no](a) effusion ...", ...]

In: a batch of `ECAMPCollator`. Out: a grey picture, in each row the patches that are seen, the decoder's picture with
these in it, the large picture of super-resolution and the true one; and texts, in which a masked word stands in
brackets, followed by what was said where that is another. The callback hands both to TensorBoard at each evaluation
and at the end, and writes the picture to OUTPUT_DIR/drawings.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessorPil, TrainerCallback
from transformers.feature_extraction_utils import BatchFeature
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from litegpt.common.files import replacing
from litegpt.modeling_towers import ECAMPModel
from litegpt.train_scripts.ecamp_trainer import ECAMPCollator
from litegpt.train_scripts.report_masking import NOT_ASKED

RADIOGRAPHS = 4
GREY = 0.5  # of what is not seen


class DrawingsCallback(TrainerCallback):
    """Draws the first radiographs of a collator.

    Args:
        processor: says mean and deviation of the pixels.
        tokenizer: None where there is no text.
    """

    def __init__(
        self,
        collator: ECAMPCollator,
        processor: CLIPImageProcessorPil,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        self.batch = collator(list(range(min(RADIOGRAPHS, len(collator.reports)))))
        self.mean, self.std = processor.image_mean[0], processor.image_std[0]
        self.tokenizer = tokenizer
        self.drawn_at: int | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._draw(args, state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._draw(args, state, model)

    def _draw(self, args: Any, state: Any, model: Any) -> None:
        if not state.is_world_process_zero or self.drawn_at == state.global_step:
            return
        self.drawn_at = state.global_step
        model = getattr(model, "module", model)  # within what shares it among processes
        training = model.training
        model.eval()
        picture = drawn(model, self.batch, self.mean, self.std)
        words = [] if self.tokenizer is None else said_words(model, self.batch, self.tokenizer)
        model.train(training)
        path = Path(args.output_dir, "drawings", f"step-{state.global_step}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary, "PNG")
        if "tensorboard" in args.report_to:
            from torch.utils.tensorboard import SummaryWriter  # seconds that others need not wait

            with SummaryWriter(str(Path(args.output_dir, "runs", "drawings"))) as writer:
                writer.add_image("drawings", np.asarray(picture)[None], state.global_step)
                for number, text in enumerate(words):
                    writer.add_text(f"words/{number}", text, state.global_step)


@torch.no_grad()
def drawn(model: ECAMPModel, batch: BatchFeature, mean: float, std: float) -> Image.Image:
    """Of each radiograph a row: what is seen, what is drawn, what is drawn large, what is there."""
    batch = BatchFeature(batch).to(model.device)
    outputs = model(**batch)
    large = batch["pixel_values"].float()
    size = model.config.vision_config.patch_size
    masked = outputs.patch_mask.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, None]
    small = model.reduced(large)
    seen = torch.where(masked == 1, (GREY - mean) / std, small[:, :1])
    filled = torch.where(masked == 1, outputs.reconstruction.float().mean(1, keepdim=True), small[:, :1])
    pictures = [functional.interpolate(part, size=large.shape[2:], mode="nearest") for part in (seen, filled)]
    if outputs.super_resolution is not None:
        pictures.append(outputs.super_resolution.float().mean(1, keepdim=True))
    rows = torch.cat([*pictures, large[:, :1]], dim=3)[:, 0]
    pixels = ((torch.cat(list(rows)) * std + mean) * 255).round().clamp(0, 255)
    return Image.fromarray(pixels.cpu().numpy().astype(np.uint8))


@torch.no_grad()
def said_words(model: ECAMPModel, batch: BatchFeature, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Each report, with every masked word in brackets and what was said behind it where that is another one."""
    batch = BatchFeature(batch).to(model.device)
    said = model(**{**batch, "labels": None}).logits.argmax(-1)
    texts = []
    for ids, labels, answers in zip(batch["input_ids"], batch["labels"], said, strict=True):
        words = []
        for token, true, answer in zip(ids.tolist(), labels.tolist(), answers.tolist(), strict=True):
            if true == NOT_ASKED or token != tokenizer.mask_token_id:
                if token not in tokenizer.all_special_ids:
                    words.append(tokenizer.convert_ids_to_tokens(token))
                continue
            true_word, said_word = tokenizer.convert_ids_to_tokens([true, answer])
            words.append(f"[{true_word}]" if true == answer else f"[{true_word}]({said_word})")
        texts.append(" ".join(words).replace(" ##", ""))
    return texts
