"""RadGraph F1 and CheXbert F1 of reports, by their authors' packages, where these are installed.

In: answered and true reports, a text each. Out: scores, or None where the package is not there; `NEEDS` says in one
sentence what is missing. Nothing of them is imported before it is asked for.

    scores = radgraph_scores(["No edema."], ["No edema. Small effusion."])
    scores["partial"]  # the mean over reports; or scores is None: print(NEEDS["radgraph"])
    chexbert_scores(["No edema."], ["Pulmonary edema."])["micro_f1"]["14"]  # as `agreement_scores` gives them

Both packages fetch their models (huggingface.co/StanfordAIMI/RRG_scorers) when they are first used, CheXbert also
bert-base-uncased. Written for radgraph 0.1.18 and f1chexbert 0.0.2, whose `F1CheXbert.forward` fails with
scikit-learn 1.9: here it labels reports one by one, and F1 is that of `litegpt.metrics.report_labels`.

Sources: Jain et al., RadGraph (2021), arXiv 2106.14463; Delbrouck et al. (2022), arXiv 2210.12186, for the rewards;
Smit et al., CheXbert (2020), arXiv 2004.09167.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from litegpt.datasets_scripts.report_texts import joined
from litegpt.metrics.ratios import number_or_none, ratio
from litegpt.metrics.report_labels import NEGATIVE, POSITIVE, UNCERTAIN, agreement_scores, label_agreement

NEEDS = {
    "radgraph": "RadGraph F1 needs the package radgraph, which is not installed: pip install radgraph==0.1.18",
    "f1chexbert": "CheXbert F1 needs the package f1chexbert, which is not installed: pip install f1chexbert==0.0.2",
}
# How strictly entities must agree: they alone; and whether each has a relation; and the relations themselves.
LEVELS = ("simple", "partial", "complete")
RADGRAPH_MODEL = "radgraph"  # that of published figures; the package's own default is radgraph-xl
STATE_OF = {1: POSITIVE, 0: NEGATIVE, -1: UNCERTAIN}  # as CheXbert writes them; "" is not spoken of


def radgraph_scores(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float | None] | None:
    """Mean F1 of RadGraph's entities and relations over reports, by level of strictness.

    Args:
        answers, truths: (n,) texts.

    Returns:
        "simple", "partial" (the usual figure, also called RG_ER), "complete", from 0 to 1, None without a report; None
        where the package is not installed.

    Raises:
        ValueError: there are not as many answers as truths.
    """
    rewards = radgraph_rewards(answers, truths)
    if rewards is None:
        return None
    return {level: number_or_none(float(ratio(values.sum(), len(values)))) for level, values in rewards.items()}


def radgraph_rewards(answers: Sequence[str], truths: Sequence[str]) -> dict[str, np.ndarray] | None:
    """{"simple", "partial", "complete"}: (n,) F1 of each report, 0 where either text is empty; None as above.

    Equal pairs of texts are read once.
    """
    radgraph = _package("radgraph")
    if radgraph is None:
        return None
    pairs = _pairs(answers, truths)
    asked = [pair for pair in dict.fromkeys(pairs) if all(pair)]
    rewards = dict.fromkeys(pairs, (0.0, 0.0, 0.0))
    if asked:
        scorer = _radgraph_scorer(radgraph)
        hyps, refs = (list(texts) for texts in zip(*asked, strict=True))
        by_level = scorer(hyps=hyps, refs=refs)[1]
        rewards |= dict(zip(asked, zip(*by_level, strict=True), strict=True))
    values = np.array([rewards[pair] for pair in pairs], dtype=np.float64).reshape(-1, len(LEVELS))
    return dict(zip(LEVELS, values.T, strict=True))


def chexbert_scores(answers: Sequence[str], truths: Sequence[str]) -> dict[str, Any] | None:
    """F1 of CheXbert's labels, what is uncertain counting as positive; None where the package is not installed.

    Returns:
        As `litegpt.metrics.report_labels.agreement_scores`: "micro_f1", "macro_f1", "per_label", "num_images".

    Raises:
        ValueError: there are not as many answers as truths.
    """
    pairs = _pairs(answers, truths)
    states = chexbert_states([text for pair in pairs for text in pair])
    return None if states is None else agreement_scores(label_agreement(states[::2], states[1::2]))


def chexbert_states(texts: Sequence[str]) -> list[dict[str, str]] | None:
    """{label: state} of each text, as CheXbert labels it; None where the package is not installed.

    Equal texts are read once.
    """
    f1chexbert = _package("f1chexbert")
    if f1chexbert is None:
        return None
    distinct = list(dict.fromkeys(texts))
    scorer = _chexbert_scorer(f1chexbert) if distinct else None
    labelled = {
        text: {
            label: STATE_OF[value]
            for label, value in zip(scorer.target_names, scorer.get_label(text, mode="classification"), strict=True)
            if value != ""
        }
        for text in distinct
    }
    return [labelled[text] for text in texts]


# Both load their weights when they are made, and are asked once for the answers and once for every control.
@lru_cache(maxsize=1)
def _radgraph_scorer(package: ModuleType) -> Any:
    return package.F1RadGraph(reward_level="all", model_type=RADGRAPH_MODEL)


@lru_cache(maxsize=1)
def _chexbert_scorer(package: ModuleType) -> Any:
    return package.F1CheXbert()


def _pairs(answers: Sequence[str], truths: Sequence[str]) -> list[tuple[str, str]]:
    """(answer, truth) of each report, in one line each."""
    if len(answers) != len(truths):
        raise ValueError(f"There are {len(answers)} answered reports and {len(truths)} true ones.")
    return [(joined(answer), joined(truth)) for answer, truth in zip(answers, truths, strict=True)]


def _package(name: str) -> ModuleType | None:
    """A package, None where it is not installed; one that is there and does not work raises its own error."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise
