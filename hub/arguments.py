"""What the programs of this folder take; their `main`s get instances of these classes."""

from dataclasses import dataclass

from litegpt.common.arguments import argument


@dataclass
class PushArguments:
    folder: str = argument("A checkpoint, an adapter, or a prepared data set.")
    repo_id: str = argument("Where to: OWNER/NAME. It is made if it does not exist.")
    metrics: str | None = argument(
        "A LiteGPT's metrics.json, of evaluate_litegpt.py, for the model card.", default=None
    )
    base_model: str | None = argument(
        "An adapter's base: a repository on the Hub, in place of the local folder.", default=None
    )
    tag: str | None = argument("A name for this state, such as v1: revision='v1'.", default=None)
    private: bool = argument("Make the repository private.", default=False)
    space: str | None = argument(
        "A LiteGPT's page as a Space of the Hub, too: OWNER/NAME of the Space, which asks repo_id.", default=None
    )
    space_dir: str | None = argument(
        "Only write that Space's files into this folder; nothing is pushed.", default=None
    )


@dataclass
class RefreshArguments:
    folder: str | None = argument("A checkpoint or an adapter on this computer.", default=None)
    repo_id: str | None = argument("Or one on the Hub: OWNER/NAME.", default=None)
    revision: str = argument("Of the repository: the branch that is changed.", default="main")
    create_pr: bool = argument("Open a pull request in place of a commit.", default=False)
