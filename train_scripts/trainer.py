"""`SFTTrainer` with the paper's recipe: its schedule, epochs of a number of steps, runs that end well."""

from collections.abc import Sequence
from dataclasses import dataclass

from trl import SFTTrainer


@dataclass
class RecipeArguments:
    pass


class LiteGPTTrainer(SFTTrainer):
    def __init__(self, recipe: RecipeArguments, example_weights: Sequence[float] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.recipe = recipe
        self.example_weights = example_weights
