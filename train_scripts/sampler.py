"""In which order a run shows its examples, the same however many processes share them.

In: the number of examples, the size of an optimizer step's batch, a seed. Out: the indices of an epoch, batch after
batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted by length together; the library's LengthGroupedSampler takes as many.
BATCHES_SORTED_TOGETHER = 50


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
    ):
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.whole_permutations = steps_per_epoch is None
        self.steps_per_epoch = steps_per_epoch or math.ceil(num_examples / batch_size)
        self.current_epoch, self.with_replacement = current_epoch, with_replacement
        self.lengths = None if lengths is None else np.asarray(lengths)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.batch_size

    def __iter__(self) -> Iterator[int]:
        epoch = self.current_epoch()
        rng = np.random.default_rng([self.seed, epoch])
        if self.with_replacement:
            indices = rng.choice(self.num_examples, len(self))
        elif self.whole_permutations:
            indices = np.resize(self._permutation(epoch), len(self))
        else:
            start = epoch * len(self)
            first, last = start // self.num_examples, (start + len(self) - 1) // self.num_examples
            stream = np.concatenate([self._permutation(number) for number in range(first, last + 1)])
            indices = stream[start - first * self.num_examples :][: len(self)]
        if self.lengths is not None:
            indices = self._grouped_by_length(indices, rng)
        return iter(indices.tolist())

    def _permutation(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(self.num_examples)

    def _grouped_by_length(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sorts within stretches of some batches, so that there is still chance in what meets in a batch."""
        stretches = []
        for start in range(0, len(indices), BATCHES_SORTED_TOGETHER * self.batch_size):
            stretch = indices[start : start + BATCHES_SORTED_TOGETHER * self.batch_size]
            by_length = stretch[np.argsort(self.lengths[stretch], kind="stable")]
            stretches.append(rng.permutation(by_length.reshape(-1, self.batch_size)).ravel())
        return np.concatenate(stretches)
