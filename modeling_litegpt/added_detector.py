"""A detector for a checkpoint that has none, such as a converted one.

In: a model with its processor. Out: the same two, with a fresh detector (`modeling_detector.py`) that is still to be
trained, and candidate tokens where these are asked for.

    model, processor = load_checkpoint("outputs/litegpt-7b")
    add_detector(model, processor, DetectorArguments(detector=True, num_candidate_tokens=12))
"""

import torch

from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.arguments import DetectorArguments
from litegpt.modeling_litegpt.modeling_detector import CandidateTokens, LiteGPTDetector
from litegpt.processing.processing_litegpt import LiteGPTProcessor


def add_detector(
    model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, arguments: DetectorArguments
) -> None:
    """Gives the model the parts that `arguments` ask for and it does not have; those that it has stay.

    Candidate tokens are visual tokens: with fresh ones the language model must be trained on.

    Raises:
        ValueError: candidate tokens are asked for in another number than it has, or without a detector.
    """
    config, parts = model.config, model.model
    asked = arguments.num_candidate_tokens or config.num_candidate_tokens
    if config.num_candidate_tokens not in (0, asked):
        raise ValueError(f"num_candidate_tokens: the checkpoint has {config.num_candidate_tokens}, not {asked}.")
    if asked and not (config.num_detector_labels or arguments.detector):
        raise ValueError("num_candidate_tokens tell of a detector's boxes: --detector adds one.")
    values = config.to_dict() | {"num_candidate_tokens": asked}
    if arguments.detector and not config.num_detector_labels:
        values |= {
            "num_detector_labels": len(processor.finding_labels),
            "detector_hidden_size": arguments.detector_hidden_size,
            "detector_scales": arguments.detector_scales,
        }
    checked = LiteGPTConfig.from_dict(values)  # before anything changes
    for name in ("num_candidate_tokens", "num_detector_labels", "detector_hidden_size", "detector_scales"):
        setattr(config, name, getattr(checked, name))
    dtype = parts.multi_modal_projector.linear_2.bias.dtype
    with torch.device(model.device):
        if parts.detector is None and config.num_detector_labels:
            parts.detector = LiteGPTDetector(config).to(dtype)
        if parts.candidate_tokens is None and config.num_candidate_tokens:
            parts.candidate_tokens = CandidateTokens(config).to(dtype)
    processor.image_seq_length = config.num_visual_tokens
