import io

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPImageProcessorPil

from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from tests.small_dicom import small_dicom


@pytest.fixture(scope="module")
def processor(tiny_checkpoint) -> LiteGPTProcessor:
    return load_checkpoint(tiny_checkpoint)[1]


def test_image_in_a_prompt_becomes_delimiters_around_the_visual_tokens(processor, radiographs):
    inputs = processor(images=radiographs[0], text="<image> hello", return_tensors="pt")
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    start = tokens.index("<image>")
    assert tokens[start : start + 18] == ["<image>"] + ["<visual>"] * 16 + ["</image>"]
    assert tokens.count("<visual>") == 16


def test_prompt_is_llama_2s_chat_format_with_identifier_and_instruction(processor):
    assert processor.prompt("vqa") == (
        "<s> [INST] <image> [vqa] Given the provided chest X-ray image, which of the following diagnoses are present "
        "(select all that apply): COPD, Lung Tumor, Pneumonia, Tuberculosis, Other Disease, or No Finding? [/INST]"
    )
    with pytest.raises(ValueError, match="no instruction for the task 'caption'"):
        processor.prompt("caption")


def test_chat_template_places_system_message_turns_and_images(processor):
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A?"}]}
    chat = [
        {"role": "system", "content": "Be brief."},
        user,
        {"role": "assistant", "content": "B."},
        {"role": "user", "content": "C?"},
    ]
    assert processor.apply_chat_template(chat) == (
        "<s> [INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image> A? [/INST] B.</s><s> [INST] C? [/INST]"
    )


def test_a_prompt_has_one_bos_token_however_it_is_tokenised(processor, radiographs):
    user = [{"type": "image", "image": radiographs[0]}, {"type": "text", "text": "[vqa] Which?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": user}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    assert (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum() == 1
    assert {"pixel_values", "aux_pixel_values"} <= set(inputs)


def test_the_whole_radiograph_is_squashed_not_cropped(processor):
    pixels = np.zeros((40, 200), dtype=np.uint8)
    pixels[:, :6] = pixels[:, -6:] = 255  # bright at the far left and right, which a centre crop would lose
    tensor = processor(images=Image.fromarray(pixels), text="<image>", return_tensors="pt")["pixel_values"][0]
    assert tensor.shape == (3, 64, 64)
    assert tensor[0, :, 0].min() > 1.5 and tensor[0, :, -1].min() > 1.5 and tensor[0, :, 32].max() < -1.5


def test_channels_are_one_grey_picture_normalised_with_clips_mean_and_deviation(processor):
    tensor = processor(images=Image.new("L", (30, 30), 100), text="<image>", return_tensors="pt")["pixel_values"][0]
    for channel, mean, std in zip(
        tensor, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), strict=True
    ):
        torch.testing.assert_close(channel, torch.full((64, 64), (100 / 255 - mean) / std), atol=1e-5, rtol=0)


def test_every_kind_of_radiograph_gives_the_same_tensors(processor, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 56), dtype=np.uint8))
    picture.save(tmp_path / "radiograph.png")
    small_dicom(np.asarray(picture)).save_as(tmp_path / "radiograph.dicom", enforce_file_format=True)

    sources = [
        picture,
        np.asarray(picture),
        picture.convert("RGB"),
        tmp_path / "radiograph.png",
        str(tmp_path / "radiograph.dicom"),
        (tmp_path / "radiograph.dicom").read_bytes(),
        io.BytesIO((tmp_path / "radiograph.png").read_bytes()),
        pydicom.dcmread(tmp_path / "radiograph.dicom"),
    ]
    batch = processor(images=sources, text=["<image>"] * len(sources), return_tensors="pt")
    for name in ("pixel_values", "aux_pixel_values"):
        for tensor in batch[name][1:]:
            torch.testing.assert_close(tensor, batch[name][0], atol=0, rtol=0)


def test_tensors_are_the_image_processors_own_to_the_last_bit(processor, radiographs):
    batch = processor(images=radiographs, text=["<image>"] * 3, return_tensors="pt")
    pictures = [radiograph.convert("RGB") for radiograph in radiographs]
    for name, image_processor in zip(
        ("pixel_values", "aux_pixel_values"), processor.tower_image_processors, strict=True
    ):
        # Where torchvision is installed, the library's image processors resize with it, a little differently.
        with_pillow = CLIPImageProcessorPil.from_dict(image_processor.to_dict())
        expected = with_pillow(pictures, return_tensors="pt")["pixel_values"]
        assert batch[name].dtype == expected.dtype and torch.equal(batch[name], expected)


def test_options_of_the_image_processor_can_be_given_with_a_call(processor, radiographs):
    size = {"height": 32, "width": 48}
    inputs = processor(images=radiographs[0], text="<image>", images_kwargs={"size": size}, return_tensors="pt")
    assert inputs["pixel_values"].shape == inputs["aux_pixel_values"].shape == (1, 3, 32, 48)
    plain = processor(images=radiographs[0], text="<image>", do_normalize=False, return_tensors="pt")["pixel_values"]
    assert 0 <= plain.min() and plain.max() <= 1


def test_changed_means_of_an_image_processor_are_noticed(processor, radiographs):
    before = processor(images=radiographs[0], text="<image>", return_tensors="pt")["pixel_values"]
    mean = processor.image_processor.image_mean
    try:
        processor.image_processor.image_mean = [0.0, 0.0, 0.0]
        after = processor(images=radiographs[0], text="<image>", return_tensors="pt")["pixel_values"]
    finally:
        processor.image_processor.image_mean = mean
    std = torch.tensor(processor.image_processor.image_std).view(3, 1, 1)
    torch.testing.assert_close(after - before, (torch.tensor(mean).view(3, 1, 1) / std).expand_as(before))


def test_a_squashed_radiograph_is_taken_as_an_image_and_knows_its_own_size(processor, radiographs):
    squashed = processor.squash(radiographs[2])
    assert squashed.size == radiographs[2].size == (120, 50)
    for name in ("pixel_values", "aux_pixel_values"):
        assert torch.equal(
            processor(images=squashed, text="<image>", return_tensors="pt")[name],
            processor(images=radiographs[2], text="<image>", return_tensors="pt")[name],
        )


def test_an_image_processor_that_crops_is_obeyed_but_squashes_nothing(processor, radiographs):
    crops = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    cropping = LiteGPTProcessor(crops, tokenizer=processor.tokenizer, num_towers=1, image_seq_length=16)
    inputs = cropping(images=radiographs[2], text="<image>", return_tensors="pt")
    expected = crops(radiographs[2].convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.equal(inputs["pixel_values"], expected)
    with pytest.raises(ValueError, match="crops"):
        cropping.squash(radiographs[2])


def test_windowing_is_the_checkpoints_and_saved_with_it(processor, tmp_path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "DX", "MONOCHROME2", 1
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored = 8, 8, 16, 12
    dataset.PixelRepresentation, dataset.WindowCenter, dataset.WindowWidth = 0, 1000, 2000
    dataset.PixelData = np.full((8, 8), 1500, np.uint16).tobytes()
    greys = {}
    for windowing in ("dicom", "paper"):
        options = {"windowing": windowing, "fast": windowing == "paper"}
        LiteGPTProcessor(
            processor.image_processor, tokenizer=processor.tokenizer, num_towers=1, **options
        ).save_pretrained(tmp_path / windowing)
        again = LiteGPTProcessor.from_pretrained(tmp_path / windowing)
        assert (again.windowing, again.fast) == (windowing, windowing == "paper")
        assert LiteGPTProcessor.from_pretrained(tmp_path / windowing, num_threads=2).num_threads == 2
        greys[windowing] = again.squash(dataset).pictures[64, 64].getpixel((5, 5))
    assert greys == {"dicom": 191, "paper": 159}  # centre +- width / 2 and centre +- width


def test_batches_are_padded_on_the_left_and_keep_the_order_of_images(processor, radiographs):
    texts = ["<image> a", "<image> a considerably longer question", "<image> b"]
    batch = processor(images=radiographs, text=texts, padding=True, return_tensors="pt")
    single = processor(images=radiographs[2], text=texts[2], return_tensors="pt")
    length = single["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][2, -length:], single["input_ids"][0])
    assert batch["attention_mask"][2, :-length].sum() == 0
    for name in ("pixel_values", "aux_pixel_values"):
        assert torch.equal(batch[name][2], single[name][0])
    nested = processor(images=[[image] for image in radiographs], text=texts, padding=True, return_tensors="pt")
    assert torch.equal(nested["pixel_values"], batch["pixel_values"])


def test_as_many_images_as_placeholders_are_needed(processor, radiographs):
    with pytest.raises(ValueError, match="<image> stands 1 times in the text, but there are 2 radiographs"):
        processor(images=radiographs[:2], text="<image> hello", return_tensors="pt")


def test_labels_and_instructions_are_saved_with_the_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = LiteGPTProcessor.from_pretrained(tmp_path)
    assert again.finding_labels == processor.finding_labels and len(again.finding_labels) == 22
    assert again.diagnosis_labels == processor.diagnosis_labels and len(again.diagnosis_labels) == 6
    assert again.prompt("identify") == processor.prompt("identify")
    assert again.tokenizer.padding_side == "left"


def test_temperatures_and_thresholds_of_scores_are_saved_with_the_processor_and_its_grammar_is_not(
    processor, tmp_path
):
    assert processor.score_temperatures == {"finding": 1.0, "diagnosis": 1.0} and processor.score_thresholds == {}
    parts = {"tokenizer": processor.tokenizer, "num_towers": 1, "finding_labels": ["Edema"]}
    options = {"score_temperatures": {"finding": 2.5}, "score_thresholds": {"Edema": 0.25}}
    calibrated = LiteGPTProcessor(processor.image_processor, **parts, instructions={"identify": "Look."}, **options)
    assert calibrated.answer_grammar is calibrated.answer_grammar
    assert calibrated.answer_grammar.tasks == ["identify"]
    calibrated.save_pretrained(tmp_path)
    again = LiteGPTProcessor.from_pretrained(tmp_path)
    assert again.score_temperatures == {"finding": 2.5, "diagnosis": 1.0}
    assert again.score_thresholds == {"Edema": 0.25}
    assert again.answer_grammar.allowed == calibrated.answer_grammar.allowed
    assert "grammar" not in (tmp_path / "processor_config.json").read_text()


def test_a_processor_for_one_tower_gives_one_tensor(processor, radiographs):
    single = LiteGPTProcessor(
        processor.image_processor, tokenizer=processor.tokenizer, num_towers=1, image_seq_length=16
    )
    inputs = single(images=radiographs[0], text="<image>", return_tensors="pt")
    assert "aux_pixel_values" not in inputs and "aux_pixel_values" not in single.model_input_names


def test_tiny_tokenizer_writes_labels_and_coordinates_as_single_tokens_and_loses_no_text(processor):
    tokenizer = processor.tokenizer
    text = "Local diseases of this chest radiograph are <p>Pleural thickening</p> {<0><25><50><100>}."
    assert len(tokenizer(text)["input_ids"]) == 10
    for sentence in (text, "Überraschend: völlig anderer Text 漢字!", " a  b "):
        assert tokenizer.decode(tokenizer(sentence)["input_ids"]).strip() == sentence.strip()
