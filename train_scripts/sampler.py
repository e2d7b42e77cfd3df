"""In which order a run shows its examples, the same however many processes share them.

In: the number of examples, the size of an optimizer step's batch, a seed. Out: the indices of an epoch, batch after
batch. With a `TaskMixture` each task has its share of them, however many examples it has.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch.utils.data import Sampler

from litegpt.common.programs import Refusal

# Batches that are sorted by length together; the library's LengthGroupedSampler takes as many.
BATCHES_SORTED_TOGETHER = 50


@dataclass(frozen=True)
class TaskMixture:
    """How often each task is shown.

    Attributes:
        tasks: (num_examples,) each example's task, an index into `shares`.
        shares: (num_tasks,) of what is shown; their sum is 1.
    """

    tasks: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, tasks: Sequence[str], weights: Mapping[str, float]) -> "TaskMixture":
        """The mixture of examples by their tasks' weights, which a task without one has 1 of.

        Raises:
            Refusal: a task has a weight and no example.
        """
        names = sorted({*tasks, *weights})
        numbers = {name: number for number, name in enumerate(names)}
        missing = sorted(set(weights) - set(tasks))
        if missing:
            raise Refusal(f"task_weights: there is no example of {missing[0]}.")
        values = np.array([weights.get(name, 1.0) for name in names], dtype=float)
        return cls(np.array([numbers[task] for task in tasks]), values / values.sum())

    def counts(self, size: int, seed: int, epoch: int) -> np.ndarray:
        """(num_tasks,) how many of an epoch's `size` examples each task has: its share, rounded up or down by chance.

        Each is its share exactly in expectation, and in every epoch within one example of it.
        """
        start = np.random.default_rng([seed, epoch, 0]).random()
        return np.diff(np.floor(np.concatenate([[0.0], np.cumsum(self.shares)[:-1], [1.0]]) * size + start)).astype(
            int
        )


class EpochSampler(Sampler[int]):
    """Indices of an epoch's examples, for all processes: batch after batch of the optimizer.

    Without replacement, epochs are consecutive stretches of an endless stream of permutations: the p-th permutation
    depends on `seed` and p alone, and every example is seen once before any is seen again, also from epoch to epoch.
    Without a number of steps, an epoch is a permutation and as much of its beginning again as fills the last batch,
    which is what Accelerate does where several processes share it.

    Args:
        num_examples: how many there are.
        batch_size: examples in an optimizer step, over all processes and accumulated batches.
        steps_per_epoch: optimizer steps in an epoch; None: as many as show every example.
        current_epoch: asked for the epoch, counted from 0, whenever one begins.
        lengths: (num_examples,) tokens; where given, an epoch's examples are put into batches of similar length.
        mixture: where given, each task has its share of every stretch of an epoch, and an endless stream of
            permutations of its own: an epoch is as long as without, and need not show every example.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        steps_per_epoch: int | None,
        seed: int,
        current_epoch: Callable[[], int],
        with_replacement: bool = False,
        lengths: Sequence[int] | None = None,
        mixture: TaskMixture | None = None,
    ):
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.whole_permutations = steps_per_epoch is None
        self.steps_per_epoch = steps_per_epoch or math.ceil(num_examples / batch_size)
        self.current_epoch, self.with_replacement = current_epoch, with_replacement
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.mixture = mixture
        if mixture is not None:
            self.examples_of_task = [np.flatnonzero(mixture.tasks == task) for task in range(len(mixture.shares))]

    def __len__(self) -> int:
        return self.steps_per_epoch * self.batch_size

    def __iter__(self) -> Iterator[int]:
        epoch = self.current_epoch()
        rng = np.random.default_rng([self.seed, epoch])
        if self.mixture is not None:
            indices = self._mixed(epoch, rng)
        elif self.with_replacement:
            indices = rng.choice(self.num_examples, len(self))
        elif self.whole_permutations:
            indices = np.resize(self._permutation(epoch), len(self))
        else:
            indices = _stretch(self._permutation, self.num_examples, epoch * len(self), len(self))
        if self.lengths is not None:
            indices = self._grouped_by_length(indices, rng)
        return iter(indices.tolist())

    def _permutation(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(self.num_examples)

    def _mixed(self, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """An epoch of a mixture: each task's examples at even distances, so that every batch has its share of each."""
        counts = self.mixture.counts(len(self), self.seed, epoch)
        before = sum((self.mixture.counts(len(self), self.seed, number) for number in range(epoch)), 0 * counts)
        indices, places = [], []
        for task, (count, start) in enumerate(zip(counts, before, strict=True)):
            examples = self.examples_of_task[task]
            if self.with_replacement:
                indices.append(rng.choice(examples, count))
            else:
                indices.append(examples[_stretch(partial(self._permutation_of, task), len(examples), start, count)])
            places.append((np.arange(count) + rng.random()) / max(count, 1))
        return np.concatenate(indices)[np.argsort(np.concatenate(places), kind="stable")]

    def _permutation_of(self, task: int, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number, task + 1]).permutation(len(self.examples_of_task[task]))

    def _grouped_by_length(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sorts within stretches of some batches, so that there is still chance in what meets in a batch."""
        stretches = []
        for start in range(0, len(indices), BATCHES_SORTED_TOGETHER * self.batch_size):
            stretch = indices[start : start + BATCHES_SORTED_TOGETHER * self.batch_size]
            by_length = stretch[np.argsort(self.lengths[stretch], kind="stable")]
            stretches.append(rng.permutation(by_length.reshape(-1, self.batch_size)).ravel())
        return np.concatenate(stretches)


def _stretch(permutation: Callable[[int], np.ndarray], size: int, start: int, count: int) -> np.ndarray:
    """`count` indices of the endless stream of permutations of `size`, from its place `start` on."""
    first, last = start // size, (start + count - 1) // size
    stream = np.concatenate([permutation(number) for number in range(first, last + 1)] or [np.zeros(0, int)])
    return stream[start - first * size :][:count]
