"""CXR-CLIP's loss: closed forms, and two processes that give the gradient of one with the whole batch."""

import math
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from litegpt.train_scripts import contrastive_loss as module
from litegpt.train_scripts.contrastive_loss import LossWeights, contrastive_loss

STUDIES, WIDTH, PROCESSES = 6, 5, 2
SCALE = torch.tensor(7.0, dtype=torch.float64)


def vectors(seed: int = 0, views: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(views, STUDIES, WIDTH, generator=generator, dtype=torch.float64), dim=-1)


def by_pairs(one: torch.Tensor, other: torch.Tensor) -> float:
    """InfoNCE of two (studies, width), both directions, in a loop over pairs."""
    total = 0.0
    for i in range(len(one)):
        there = [math.exp(SCALE * sum(one[i] * other[j])) for j in range(len(one))]
        back = [math.exp(SCALE * sum(one[j] * other[i])) for j in range(len(one))]
        total -= math.log(there[i] / sum(there)) + math.log(back[i] / sum(back))
    return total / (2 * len(one))


@pytest.mark.parametrize("scale", [1.0, 14.3])
def test_orthonormal_vectors_have_the_closed_form(scale):
    images = torch.eye(STUDIES, dtype=torch.float64).expand(2, -1, -1)
    loss = contrastive_loss(images, images, torch.tensor(scale)).loss
    assert loss.item() == pytest.approx(2.5 * math.log(1 + (STUDIES - 1) * math.exp(-scale)))


def test_equal_vectors_have_the_logarithm_of_the_studies():
    images = vectors()[:, :1].expand(-1, STUDIES, -1)[:1].expand(2, -1, -1)
    assert contrastive_loss(images, images, SCALE).loss.item() == pytest.approx(2.5 * math.log(STUDIES))


def test_it_is_the_loop_over_all_pairs():
    images, texts = vectors(0), vectors(1)
    found = contrastive_loss(images, texts, SCALE, LossWeights(image=0.7, text=0.3, multi_view=1.1))
    mvs = sum(by_pairs(image, text) for image in images for text in texts) / 4
    assert found.mvs.item() == pytest.approx(mvs)
    assert found.icl.item() == pytest.approx(by_pairs(*images))
    assert found.tcl.item() == pytest.approx(by_pairs(*texts))
    assert found.loss.item() == pytest.approx(1.1 * mvs + 0.7 * by_pairs(*images) + 0.3 * by_pairs(*texts))


def test_the_papers_weights_are_the_default():
    found = contrastive_loss(vectors(0), vectors(1), SCALE)
    assert found.loss.item() == pytest.approx((found.mvs + found.icl + 0.5 * found.tcl).item())


def test_images_and_texts_may_change_places_with_their_weights():
    images, texts = vectors(0), vectors(1)
    one = contrastive_loss(images, texts, SCALE, LossWeights(image=1.0, text=0.5))
    other = contrastive_loss(texts, images, SCALE, LossWeights(image=0.5, text=1.0))
    assert one.loss.item() == pytest.approx(other.loss.item(), abs=1e-12)
    assert contrastive_loss(images.flip(0), texts, SCALE).loss.item() == pytest.approx(one.loss.item(), abs=1e-12)


def test_the_order_of_the_studies_does_not_matter():
    images, texts, order = vectors(0), vectors(1), torch.randperm(STUDIES, generator=torch.Generator().manual_seed(3))
    shuffled = contrastive_loss(images[:, order], texts[:, order], SCALE).loss
    assert shuffled.item() == pytest.approx(contrastive_loss(images, texts, SCALE).loss.item(), abs=1e-12)
    apart = contrastive_loss(images[:, order], texts, SCALE).loss  # each image with another study's text
    assert abs(apart - shuffled) > 0.1


def test_terms_without_weight_or_second_view_are_left_out():
    without = contrastive_loss(vectors(0), vectors(1), SCALE, LossWeights(image=0, text=0))
    assert without.icl is without.tcl is None and torch.equal(without.loss, without.mvs)
    one_image = contrastive_loss(vectors(0, views=1), vectors(1), SCALE)
    assert one_image.icl is None and one_image.tcl is not None
    images_alone = contrastive_loss(vectors(0), vectors(1), SCALE, LossWeights(text=0, multi_view=0))
    assert images_alone.loss.item() == pytest.approx(images_alone.icl.item())


def test_one_view_is_clips_loss():
    from transformers import CLIPConfig, CLIPModel  # here: the two processes below import this file too

    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 20, "eos_token_id": 2},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=WIDTH,
    )
    model = CLIPModel(config).eval()
    outputs = model(
        input_ids=torch.randint(3, 20, (STUDIES, 7)), pixel_values=torch.randn(STUDIES, 3, 16, 16), return_loss=True
    )
    plain = LossWeights(image=0, text=0)
    ours = contrastive_loss(outputs.image_embeds[None], outputs.text_embeds[None], model.logit_scale.exp(), plain)
    torch.testing.assert_close(ours.loss, outputs.loss)


# --- Two processes ---------------------------------------------------------------------------------------------------


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(7, WIDTH).double(), nn.Linear(7, WIDTH).double()
        self.logit_scale = nn.Parameter(torch.tensor(2.65, dtype=torch.float64))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images, texts = (
            functional.normalize(tower(part), dim=-1)
            for tower, part in zip((self.image, self.text), inputs.unflatten(0, (2, 2)), strict=True)
        )
        return images, texts, self.logit_scale.exp()


def inputs() -> torch.Tensor:
    """(2 images and 2 texts, studies of all processes, 7)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, PROCESSES * STUDIES, 7, generator=generator, dtype=torch.float64)


class OwnSlice:
    """What is often done: the others' vectors without gradient, with the own ones put between them."""

    @staticmethod
    def apply(own: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(own) for _ in range(PROCESSES)]
        distributed.all_gather(parts, own.detach().contiguous())
        parts[distributed.get_rank()] = own
        return torch.cat(parts, dim=1)


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    results = {}
    own = inputs()[:, rank * STUDIES : (rank + 1) * STUDIES]
    for name, gather in (("ours", module._Gather), ("own slice", OwnSlice)):
        module._Gather = gather
        model = DistributedDataParallel(TwoTowers())
        found = contrastive_loss(*model(own))
        found.loss.backward()
        loss = found.loss.detach().clone()
        distributed.all_reduce(loss)
        gradients = {key: weight.grad for key, weight in model.module.named_parameters()}
        results[name] = loss / PROCESSES, gradients
    with torch.no_grad():
        results["alone"] = contrastive_loss(*model(own), alone=True).loss
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_processes(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), nprocs=PROCESSES)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def of_one_process() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = TwoTowers()
    loss = contrastive_loss(*model(inputs())).loss
    loss.backward()
    return loss.detach(), {key: weight.grad for key, weight in model.named_parameters()}


def test_two_processes_have_the_loss_and_every_gradient_of_one(of_processes, of_one_process):
    loss, gradients = of_one_process
    assert len(gradients) == 5 and all(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for results in of_processes:
        found, found_gradients = results["ours"]
        torch.testing.assert_close(found, loss, atol=1e-12, rtol=0)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[name], gradient, atol=1e-12, rtol=0)


def test_to_put_the_own_slice_among_the_others_gives_another_gradient(of_processes, of_one_process):
    loss, gradients = of_one_process
    found, found_gradients = of_processes[0]["own slice"]
    torch.testing.assert_close(found, loss, atol=1e-12, rtol=0)  # the loss does not show it
    for tower in ("image.weight", "text.weight"):
        difference = (found_gradients[tower] - gradients[tower]).norm() / gradients[tower].norm()
        assert difference > 1e-3


def test_alone_a_process_sees_its_own_studies(of_processes):
    with torch.no_grad():
        for rank, results in enumerate(of_processes):
            own = contrastive_loss(*TwoTowers()(inputs()[:, rank * STUDIES : (rank + 1) * STUDIES])).loss
            torch.testing.assert_close(results["alone"], own)
