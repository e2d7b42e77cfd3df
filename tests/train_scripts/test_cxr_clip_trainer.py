"""The trainer of a CXR-CLIP: large batches in chunks, precision, samplers, batches, validation."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import TrainerCallback, TrainingArguments

from litegpt.common.programs import Refusal
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.new_cxr_clip import word_pieces
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts import cxr_clip_trainer
from litegpt.train_scripts.arguments import StudyArguments
from litegpt.train_scripts.contrastive_loss import PAPER_WEIGHTS, LossWeights, contrastive_loss
from litegpt.train_scripts.cxr_clip_trainer import (
    CXRCLIPTrainer,
    StudyCollator,
    chunks_of,
)
from litegpt.train_scripts.cxr_clip_validation import CXRCLIPValidation
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.studies import Studies
from litegpt.train_scripts.tower_trainer import StudyIndices, StudySampler, picture_dtype
from tests.small_cxr_clip import BERT, RESNET, SIDE, VIT, row, rows_of

STUDIES = 8
# Softmax does not change where all keys are moved alike.
IDLE = ("vision_model.layers.0.attention.k_proj.bias", "text_model.encoder.layer.0.attention.self.key.bias")
DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows():
    return rows_of([row(number // 2, view=("PA", "LATERAL")[number % 2]) for number in range(2 * 24)])


@pytest.fixture(scope="module")
def studies(rows) -> StudyIndices:
    return StudyIndices([Studies(rows, StudyArguments(equalise=0))])


@pytest.fixture(scope="module")
def processor(studies) -> CXRCLIPProcessor:
    tokenizer = word_pieces(studies.studies[0].corpus(), 200, 48)
    return CXRCLIPProcessor(image_processor(SIDE, [0.5] * 3, [0.5] * 3), tokenizer, max_length=48)


@pytest.fixture(scope="module")
def collator(studies, rows, processor, tmp_path_factory) -> StudyCollator:
    store = RadiographStore(rows, [processor.image_processor], tmp_path_factory.mktemp("store"))
    return StudyCollator(studies, [store], processor, seed=3)


@pytest.fixture
def new_trainer(studies, collator, processor, tmp_path):
    def new(chunk_size: int | None = None, vision=VIT, dropout: bool = False, **options) -> CXRCLIPTrainer:
        torch.manual_seed(0)
        text = {**BERT, "vocab_size": len(processor.tokenizer), **(DROPOUT if dropout else {})}
        vision = {**vision, **(DROPOUT if dropout else {})}
        config = CXRCLIPConfig(vision_config=vision, text_config=text, image_size=SIDE, projection_dim=8)
        model = CXRCLIPModel(config)
        with torch.no_grad():  # a fresh one gives all studies nearly the same vector
            for parameter in model.parameters():
                if parameter.ndim:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        of_trainer = {
            name: options.pop(name) for name in ("validation", "abnormal_share", "eval_dataset") if name in options
        }
        weights = options.pop("weights", PAPER_WEIGHTS)
        arguments = {"per_device_train_batch_size": STUDIES, "max_steps": 1, "logging_steps": 1, "seed": 3}
        arguments |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        trainer = CXRCLIPTrainer(
            weights=weights,
            chunk_size=chunk_size,
            **of_trainer,
            model=model,
            args=TrainingArguments(str(tmp_path / "out"), **{**arguments, **options}),
            train_dataset=studies,
            data_collator=collator,
        )
        trainer.current_gradient_accumulation_steps = 1  # which the library sets in `train`
        return trainer

    return new


def gradients(model: CXRCLIPModel) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and "logit_scale" in found
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: name + text
        )


def in_one_piece(trainer: CXRCLIPTrainer, batch: dict[str, torch.Tensor], chunk_size: int) -> dict[str, torch.Tensor]:
    """Gradients of the whole batch's loss; all chunks' graphs are held at once."""
    model = trainer.model.train()
    parts = []
    for chunk in chunks_of(batch, 2, chunk_size):
        outputs = model(**chunk)
        parts.append([vectors.unflatten(0, (2, -1)) for vectors in (outputs.image_embeds, outputs.text_embeds)])
    images, texts = (torch.cat(vectors, dim=1) for vectors in zip(*parts, strict=True))
    contrastive_loss(images, texts, model.scale, trainer.weights).loss.backward()
    return gradients(model)


# --- Chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 4, 3, 8, 20])
def test_a_step_in_chunks_has_the_gradient_of_the_whole_batch(chunk_size, new_trainer, collator):
    batch = collator(list(range(STUDIES)))
    whole = new_trainer()
    loss = whole.training_step(whole.model, batch)
    expected = gradients(whole.model)
    assert all(gradient.abs().max() > 1e-4 for name, gradient in expected.items() if name not in IDLE)
    trainer = new_trainer(chunk_size)
    torch.testing.assert_close(trainer.training_step(trainer.model, batch), loss)
    assert_same_gradients(gradients(trainer.model), expected)


@pytest.mark.parametrize("chunk_size", [4, 3])
def test_dropout_draws_the_same_both_times(chunk_size, new_trainer, collator, monkeypatch):
    batch = collator(list(range(STUDIES)))
    trainer = new_trainer(chunk_size, dropout=True)
    torch.manual_seed(5)
    expected = in_one_piece(trainer, batch, chunk_size)
    after = torch.get_rng_state()
    trainer.model.zero_grad()
    torch.manual_seed(5)
    trainer.training_step(trainer.model, batch)
    assert_same_gradients(gradients(trainer.model), expected)
    assert torch.equal(torch.get_rng_state(), after)  # the next step draws other numbers

    monkeypatch.setattr(cxr_clip_trainer, "set_random_state", lambda *_: None)
    trainer.model.zero_grad()
    torch.manual_seed(5)
    trainer.training_step(trainer.model, batch)
    with pytest.raises(AssertionError):
        assert_same_gradients(gradients(trainer.model), expected)


def test_batch_norms_count_every_picture_once(new_trainer, collator):
    batch = collator(list(range(STUDIES)))
    trainer, plain = new_trainer(chunk_size=3, vision=RESNET), new_trainer(vision=RESNET)
    trainer.training_step(trainer.model, batch)
    plain.model.train()
    for chunk in chunks_of(batch, 2, 3):
        plain.model(**chunk)
    found, expected = dict(trainer.model.named_buffers()), dict(plain.model.named_buffers())
    tracked = [name for name in found if name.endswith("num_batches_tracked")]
    assert tracked and all(found[name] == 3 for name in tracked)
    for name, buffer in expected.items():
        torch.testing.assert_close(found[name], buffer)


def test_images_alone_are_contrasted_in_chunks_too(new_trainer, collator):
    trainer = new_trainer(3, weights=LossWeights(text=0, multi_view=0))
    trainer.training_step(trainer.model, collator(list(range(STUDIES))))
    found = gradients(trainer.model)
    assert found["image_projection.weight"].abs().max() > 0 and not found["text_projection.weight"].any()


def test_a_chunk_has_both_views_of_its_studies():
    batch = {"pixel_values": torch.arange(14), "input_ids": torch.arange(14)}
    assert [chunk["input_ids"].tolist() for chunk in chunks_of(batch, 2, 3)] == [
        [0, 1, 2, 7, 8, 9],
        [3, 4, 5, 10, 11, 12],
        [6, 13],
    ]


# --- Precision -------------------------------------------------------------------------------------------------------


class KeepGradients(TrainerCallback):
    """Those of a step, before it."""

    def __init__(self, kept: dict[str, torch.Tensor]):
        self.kept = kept

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.kept |= gradients(model)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_under_bf16_towers_are_rounded_but_cosines_are_not(chunk_size, new_trainer, monkeypatch):
    seen = []

    def spy(images, texts, scale, weights):
        found = contrastive_loss(images, texts, scale, weights)
        whole = (scale.double() * images[0].double() @ texts[0].double().T).float()
        half = (scale * images[0].bfloat16() @ texts[0].bfloat16().T).float()
        seen.append((images.dtype, texts.dtype, scale.dtype, found.loss.dtype, torch.is_autocast_enabled("cpu")))
        torch.testing.assert_close(scale * images[0] @ texts[0].T, whole, atol=1e-5, rtol=1e-5)
        assert (half - whole).abs().max() > 1e-3
        return found

    monkeypatch.setattr(cxr_clip_trainer, "contrastive_loss", spy)
    losses, found = {}, {}
    for bf16 in (False, True):
        trainer = new_trainer(chunk_size, bf16=bf16, learning_rate=0.0, max_grad_norm=0.0)
        trainer.add_callback(KeepGradients(grads := {}))
        trainer.train()
        found[bf16] = grads
        losses[bf16] = trainer.state.log_history[0]["loss"]
    assert seen == [(torch.float32,) * 4 + (False,)] * 2
    assert losses[True] == pytest.approx(losses[False], rel=0.05)
    for name, gradient in found[False].items():
        rounded = found[True][name]
        assert not torch.equal(rounded, gradient), name
        if name.endswith("projection.weight"):
            assert functional.cosine_similarity(rounded.ravel(), gradient.ravel(), dim=0) > 0.95


# --- Samplers --------------------------------------------------------------------------------------------------------


def sampler(abnormal, share, epoch: int = 0, seed: int = 0, batch_size: int = 5) -> StudySampler:
    return StudySampler(np.array(abnormal), share, batch_size=batch_size, seed=seed, current_epoch=lambda: epoch)


def test_the_order_hangs_on_seed_and_epoch_alone():
    abnormal = [True] * 10 + [False] * 20
    for share in (None, 0.5):
        orders = {key: list(sampler(abnormal, share, *key)) for key in ((0, 0), (1, 0), (0, 1)) for _ in range(2)}
        assert list(sampler(abnormal, share, 0, 0)) == orders[0, 0]
        assert len({tuple(number % 30 for number in order) for order in orders.values()}) == 3
        assert all(number // 30 == key[0] for key, order in orders.items() for number in order)


def test_every_study_is_shown_once_an_epoch():
    for epoch in (0, 3):
        numbers = list(sampler([False] * 30, None, epoch))
        assert sorted(number % 30 for number in numbers) == list(range(30))


@pytest.mark.parametrize(("share", "normal"), [(0.5, 10), (0.25, 30), (0.8, 2), (1.0, 0), (0.1, 40)])
def test_studies_with_findings_have_the_share_asked_for_and_all_are_shown(share, normal):
    abnormal = [index % 5 == 0 for index in range(50)]  # 10 and 40: less than a fifth is not to be had
    epochs = [[number % 50 for number in sampler(abnormal, share, epoch, batch_size=2)] for epoch in range(8)]
    for shown in epochs:
        counts = Counter(shown)
        assert max(counts.values()) == 1 and len(shown) == 10 + normal
        assert sum(abnormal[index] for index in shown) == 10
    if 1 < normal < 40:
        assert len({frozenset(shown) for shown in epochs}) > 1  # other normal ones each time


def test_a_share_that_cannot_be_had_is_refused():
    for abnormal, share in (([False] * 4, 0.5), ([True] * 4, 0.0)):
        with pytest.raises(Refusal, match="abnormal_share: it must be above 0, and there must be"):
            sampler(abnormal, share)


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_hangs_on_seed_epoch_and_studies_alone(collator, studies, processor):
    torch.manual_seed(0)
    first = collator([4, 9, 2])
    torch.manual_seed(1)
    again = collator([4, 9, 2])
    assert all(torch.equal(first[name], again[name]) for name in first)
    other_epoch = collator([number + len(studies) for number in (4, 9, 2)])
    other_seed = StudyCollator(studies, collator.stores, processor, seed=4)([4, 9, 2])
    for other in (other_epoch, other_seed):
        assert not torch.equal(other["pixel_values"], first["pixel_values"])


def test_a_batch_has_all_first_views_before_all_second_ones(processor, collator):
    entries = rows_of([row(number, view=view) for number in range(3) for view in ("PA", "LATERAL")])
    plain = StudyIndices([Studies(entries, StudyArguments(augment=False))])
    batch = StudyCollator(plain, collator.stores, processor).batch([0, 1, 2], np.random.default_rng(0))
    texts = processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert batch["pixel_values"].shape == (6, 1, SIDE, SIDE) and len(texts) == 6
    for view in (texts[:3], texts[3:]):
        assert [text.split()[1][-1] for text in view] == ["0", "1", "2"], texts
    assert all(one != other for one, other in zip(texts[:3], texts[3:], strict=True))


def test_mixed_precision_has_pictures_in_half_that_show_the_same(studies, processor, collator, tmp_path):
    arguments = [TrainingArguments(str(tmp_path), use_cpu=True, bf16=bf16, report_to="none") for bf16 in (False, True)]
    assert [picture_dtype(of_run) for of_run in arguments] == [torch.float32, torch.float16]
    half = StudyCollator(studies, collator.stores, processor, seed=3, dtype=torch.float16)([4, 9, 2])["pixel_values"]
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), collator([4, 9, 2])["pixel_values"], atol=1e-3, rtol=1e-3)


def test_pictures_and_texts_of_several_data_sets_stay_with_their_studies(rows, processor, collator, tmp_path):
    labels = ["Mass", "Nodule"]
    others = rows_of([row(50 + number, labels=[number % 2]) for number in range(5)], labels=labels)
    plain = StudyArguments(study_sampling=False, augment=False)
    both = StudyIndices([Studies(rows, plain), Studies(others, plain)])
    stores = [collator.stores[0], RadiographStore(others, [processor.image_processor], tmp_path)]
    batch = StudyCollator(both, stores, processor).batch([25, 3, 28, 0], None)
    expected = processor(
        images=[others[1]["image"], rows[6]["image"], others[4]["image"], rows[0]["image"]],
        text=[f"{row(n)['report_findings']} {row(n)['report_impression']}" for n in (51, 3, 54, 0)],
    )
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"][:, :1], atol=1e-5, rtol=0)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert both.abnormal.shape == (29,) and len(both) == 29


def test_pictures_have_one_channel_where_mean_and_deviation_are_one(studies, rows, processor, collator, tmp_path):
    coloured = CXRCLIPProcessor(image_processor(SIDE, [0.4, 0.5, 0.6], [0.5] * 3), processor.tokenizer, max_length=48)
    store = RadiographStore(rows, [coloured.image_processor], tmp_path)
    batch = StudyCollator(studies, [store], coloured).batch([2, 0], None)
    expected = coloured(images=[rows[4]["image"], rows[0]["image"]])["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], expected, atol=1e-5, rtol=0)
    assert collator.batch([2, 0], None)["pixel_values"].shape == (2, 1, SIDE, SIDE)


def test_pictures_are_made_some_at_a_time(collator, monkeypatch):
    whole = collator([4, 9, 2, 7, 1])
    monkeypatch.setattr(cxr_clip_trainer, "PICTURES_AT_ONCE", 2)
    assert torch.equal(collator([4, 9, 2, 7, 1])["pixel_values"], whole["pixel_values"])


# --- What is refused -------------------------------------------------------------------------------------------------


def test_accumulated_batches_are_refused(new_trainer):
    with pytest.raises(Refusal, match="accumulated batches do not see each other.*--chunk_size does that"):
        new_trainer(gradient_accumulation_steps=2)


def test_a_batch_larger_than_the_studies_is_refused(new_trainer):
    with pytest.raises(Refusal, match="A batch of 25 studies is larger than the 24 there are"):
        new_trainer(per_device_train_batch_size=25).train()
    with pytest.raises(Refusal, match=r"larger than the \d+ there are"):
        new_trainer(per_device_train_batch_size=30, abnormal_share=1.0).train()


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_loss_that_is_no_number_ends_the_run(chunk_size, new_trainer, collator):
    batch = collator(list(range(STUDIES)))
    batch["pixel_values"][0] = torch.nan
    trainer = new_trainer(chunk_size)
    with pytest.raises(Refusal, match="The loss is nan: try a lower learning_rate"):
        trainer.training_step(trainer.model, batch)


# --- Log and validation ----------------------------------------------------------------------------------------------


def test_the_log_has_the_losses_terms_and_the_scale(new_trainer):
    trainer = new_trainer()
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(entry["mvs"] + entry["icl"] + 0.5 * entry["tcl"], abs=1e-3)
    assert entry["scale"] == pytest.approx(1 / 0.07, rel=1e-2)


def validation_of(studies, collator, processor) -> CXRCLIPValidation:
    return CXRCLIPValidation(StudyCollator(studies, collator.stores, processor), processor, PAPER_WEIGHTS, 7)


@pytest.fixture
def held_out(rows) -> StudyIndices:
    """Half with findings, half without."""
    entries = [
        row(number // 2, [1] if number // 2 % 2 else [6], view=("PA", "LATERAL")[number % 2]) for number in range(48)
    ]
    return StudyIndices([Studies(rows_of(entries), StudyArguments(augment=False))])


def test_a_validation_is_logged_and_draws_nothing_from_what_follows(new_trainer, held_out, collator, processor):
    validation = validation_of(held_out, collator, processor)
    options = {"validation": validation, "eval_dataset": held_out, "eval_strategy": "steps", "eval_steps": 1}
    trainer = new_trainer(max_steps=2, dropout=True, **options)
    trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [1, 2]
    for entry in evaluations:
        assert 0 <= entry["eval_zero_shot_auroc"] <= 1
        assert 0 <= entry["eval_retrieval_mean_rank"] <= 24 and entry["eval_retrieval_texts"] == 24
        assert 0 <= entry["eval_retrieval_r_at_10"] <= 1
    without = new_trainer(max_steps=2, dropout=True)
    without.train()
    for name, weight in without.model.state_dict().items():
        assert torch.equal(weight, trainer.model.state_dict()[name]), name


def test_a_validation_gives_the_same_figures_each_time(new_trainer, held_out, collator, processor):
    model = new_trainer().model.eval()
    validation = validation_of(held_out, collator, processor)
    with torch.no_grad():
        figures = validation(model)
        assert validation(model) == figures
    assert figures.keys() == {
        "loss",
        "retrieval_mean_rank",
        "retrieval_r_at_10",
        "retrieval_texts",
        "zero_shot_auroc",
    }


def test_labels_with_few_studies_are_not_scored(new_trainer, studies, collator, processor):
    with torch.no_grad():  # four of 24 studies have each label
        assert "zero_shot_auroc" not in validation_of(studies, collator, processor)(new_trainer().model.eval())
