"""The things that chest reports speak of (ECAMP's 44 entities), found in a text in all their forms.

In: a text. Out: where it names an entity.

    mentions("Small pleural effusions; no COPD.")
    # [Mention(start=14, end=23, entity="effusion"), Mention(start=28, end=32, entity="COPD")]
    release_mentions("Small pleural effusions; no COPD.")    # []: as ECAMP's published code, which knows neither

`ENTITIES` is the one table: a form is a word, or several, that name the same thing. A text is read once, whatever the
number of forms.

Source: Wang et al., ECAMP (2023), arXiv 2312.13316, appendix B, for the names; the other forms are this project's own.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# {name: its other forms}: plurals, words of the same stem, other spellings, abbreviations, and what reports say in its
# place. A blank stands for any white space and for a hyphen.
ENTITIES: Mapping[str, tuple[str, ...]] = {
    "abnormality": ("abnormalities",),
    "abscess": ("abscesses",),
    "aerate": ("aerated", "aerates", "aerating", "aeration"),
    "aorta": ("aortae", "aortas", "aortic"),
    "atelectasis": ("atelectases", "atelectatic"),
    "bronchiectasis": ("bronchiectases", "bronchiectatic"),
    "calcification": ("calcifications", "calcific", "calcified"),
    "cardiomediastinal": ("cardio mediastinal",),
    "cardiomegaly": ("cardiac enlargement", "enlarged heart", "enlargement of the heart", "heart enlargement"),
    "catheter": ("catheters",),
    "chf": ("cardiac failure", "congestive failure", "congestive heart failure", "heart failure"),
    "collapse": ("collapsed", "collapses", "collapsing"),
    "congestion": ("congested", "congestive"),
    "consolidation": ("consolidated", "consolidations", "consolidative"),
    "contour": ("contours",),
    "COPD": ("chronic obstructive airway disease", "chronic obstructive lung disease")
    + ("chronic obstructive pulmonary disease",),
    "deformity": ("deformed", "deformities"),
    "dilation": ("dilatation", "dilatations", "dilated", "dilations"),
    "distention": ("distended", "distension"),
    "edema": ("edematous", "oedema"),
    "effusion": ("effusions",),
    "embolism": ("emboli", "embolic", "embolisms", "embolus"),
    "emphysema": ("emphysematous",),
    "engorgement": ("engorged",),
    "fibrosis": ("fibroses", "fibrotic"),
    "fracture": ("fractured", "fractures"),
    "granuloma": ("granulomas", "granulomata", "granulomatous"),
    "hernia": ("herniae", "hernias", "herniated", "herniation"),
    "hilar": ("hila", "hilum", "hilus"),
    "hyperinflate": ("hyperexpanded", "hyperexpansion", "hyperinflated", "hyperinflation", "hyper expanded")
    + ("hyper expansion", "hyper inflated", "hyper inflation", "overinflated", "overinflation"),
    "hemidiaphragm": ("hemi diaphragm", "hemi diaphragms", "hemidiaphragms"),
    "infiltrate": ("infiltrates", "infiltration", "infiltrations", "infiltrative"),
    "mass": ("masses",),
    "nodule": ("nodular", "nodularity", "nodules"),
    "obscure": ("obscuration", "obscured", "obscures", "obscuring"),
    "opacity": ("opacification", "opacifications", "opacified", "opacities"),
    "perihilar": ("parahilar", "peri hilar"),
    "pneumonia": ("bronchopneumonia", "pneumonias", "pneumonic"),
    "pneumothorax": ("hydro pneumothorax", "hydropneumothorax", "pneumothoraces", "pneumothoraxes"),
    "sarcoidosis": ("sarcoid",),
    "silhouette": ("silhouettes",),
    "thickening": ("thickened", "thickenings"),
    "tuberculosis": ("tb", "tuberculous"),
    "vasculature": ("vascularity",),
}
# They hold a form and name another thing. The longest form at a place wins, so these do where they stand.
OTHER_THINGS = ("mass effect", "mass effects", "mass like", "non calcified")

# Of ECAMP's published code: each name is compared with single tokens in lower case. These two are no single tokens of
# its tokenizer, and COPD is not in lower case.
NEVER_MET_BY_RELEASE = ("aerate", "COPD", "hyperinflate")


class Mention(NamedTuple):
    """A place where a text names an entity.

    Attributes:
        start, end: characters of the text; `text[start:end]` is the mention.
        entity: its name in `ENTITIES`.
    """

    start: int
    end: int
    entity: str


_ENTITY_OF = {form: name for name, forms in ENTITIES.items() for form in (name.lower(), *forms)}
_LONGEST_FIRST = sorted((*_ENTITY_OF, *OTHER_THINGS), key=len, reverse=True)
_ALTERNATIVES = "|".join(_LONGEST_FIRST).replace(" ", r"(?:-|\s+)")
_FORMS = re.compile(rf"\b(?:{_ALTERNATIVES})\b", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d]+")  # that tokenizer parts digits from letters
_RELEASE_ENTITIES = {name for name in ENTITIES if name not in NEVER_MET_BY_RELEASE}


def mentions(text: str) -> list[Mention]:
    """Where a text names an entity in any form: in order, not overlapping, the longest form at a place.

    Whole words alone, in any case: "masslike" names no mass.
    """
    found = []
    for match in _FORMS.finditer(text):
        entity = _ENTITY_OF.get(re.sub(r"[-\s]+", " ", match[0]).lower())
        if entity is not None:
            found.append(Mention(match.start(), match.end(), entity))
    return found


def release_mentions(text: str) -> list[Mention]:
    """Where ECAMP's published code finds an entity: single words that equal its name, in any case.

    No plurals and no other forms, and never "COPD", "aerate" and "hyperinflate".
    """
    words = ((match.start(), match.end(), match[0].lower()) for match in _WORDS.finditer(text))
    return [Mention(*word) for word in words if word[2] in _RELEASE_ENTITIES]
