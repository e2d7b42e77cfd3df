"""transformers' own tests for processors, on LiteGPT's with small pictures."""

import unittest

from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast
from transformers_tests.test_processing_common import ProcessorTesterMixin

from litegpt.processing.processing_litegpt import LiteGPTProcessor, add_litegpt_tokens


class LiteGPTProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = LiteGPTProcessor

    @classmethod
    def _setup_image_processor(cls) -> CLIPImageProcessor:
        return CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)

    @classmethod
    def _setup_aux_image_processor(cls) -> CLIPImageProcessor:
        return cls._setup_image_processor()

    @classmethod
    def _setup_tokenizer(cls) -> PreTrainedTokenizerFast:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
        model = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        add_litegpt_tokens(tokenizer)
        return tokenizer

    @staticmethod
    def prepare_processor_dict() -> dict:
        return {"image_seq_length": 4}

    def prepare_images_inputs(self, batch_size: int | None = None, nested: bool = False):
        """Grey pictures: the processor makes every picture grey before its values are compared."""
        pictures = super().prepare_images_inputs(batch_size, nested)
        return _grey(pictures)

    def get_component(self, attribute: str, use_tiny_ckpt: bool = True, **kwargs):
        if attribute == "aux_image_processor":  # none of the library's processors has a second one
            return LiteGPTProcessor.from_pretrained(self.tmpdirname).aux_image_processor
        return super().get_component(attribute, **kwargs)

    @unittest.skip(
        "It loads each part by a table of the library's own part names, which has no aux_image_processor; "
        "tests/processing/test_processing_litegpt.py saves and loads the processor."
    )
    def test_processor_from_and_save_pretrained_as_nested_dict(self):
        pass


def _grey(pictures: Image.Image | list) -> Image.Image | list:
    if isinstance(pictures, list):
        return [_grey(picture) for picture in pictures]
    return pictures.convert("L").convert("RGB")
