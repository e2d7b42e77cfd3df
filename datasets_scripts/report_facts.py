"""What a report says of the entities, by rules: a text -> facts -> short sentences.

    distilled("The lungs are clear. No effusion.", "Normal chest.")    # "There is no opacity. There is no effusion."
    facts_of("No effusion or pneumothorax, possible atelectasis at the left base.")
    # [Fact("effusion", "negative", ("effusion",)), Fact("pneumothorax", "negative", ("pneumothorax",)),
    #  Fact("atelectasis", "uncertain", ("atelectasis",), place="at the left base")]

A sentence is read from left to right. A word of negation or doubt holds for what follows it ("without", "may
represent") or for what precedes it ("... is not seen", "... cannot be excluded"), until the sentence ends, a word such
as "but" or "except" stands there, or a list turns: "no effusion, pneumothorax or mass" denies three things, "no
effusion, small nodule" one. `CUES` has all such words:

    no, without, free of, rather than, no longer, resolved, unlikely         negative
    may, could, possible, likely, suggest, versus, cannot exclude, A or B    uncertain; after a negation it stays one
    consistent with, compatible with, represents; unchanged, resolving       positive; "no change in" is no negation
    if, recommend, history of, evaluate for                                  nothing is said of this picture: no fact

Words just before an entity that name a degree, a place or a kind stay, and so does a place just after it. What is in
every chest, such as the aorta, is a fact only with what is said of it: "There is tortuous aorta." Two things are
inferred: a heart of normal size is no cardiomegaly (a borderline one may be, an enlarged one is), and where the lungs
are clear or normal there is no opacity. What is said outright beats them.

A thing stands once. Where a report contradicts itself the later sentence holds, and so the impression. "No effusion"
contradicts "small left effusion"; "no large effusion" does not contradict "small effusion".

Rules err: docs/prepare_data.md has their figures on sentences of real reports.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from litegpt.datasets_scripts.annotations import STATES
from litegpt.datasets_scripts.report_entities import mentions
from litegpt.datasets_scripts.report_texts import joined, without_masks

POSITIVE, NEGATIVE, UNCERTAIN = STATES


class Fact(NamedTuple):
    """What a report says of one thing.

    Attributes:
        thing: in lower case, with what stands beside the entity: "mild left effusion".
        state: one of `annotations.STATES`.
        entities: that the thing names; what it is comes last.
        place: words after the thing that say where, such as "in the left lung base"; "" where there are none.
        implied: whether it was inferred: "heart size is normal".
    """

    thing: str
    state: str
    entities: tuple[str, ...]
    place: str = ""
    implied: bool = False


# --- Words -----------------------------------------------------------------------------------------------------------

# In every chest: that they are there says nothing.
ANATOMY = frozenset(
    "aerate aorta cardiomediastinal contour hemidiaphragm hilar perihilar silhouette vasculature".split()
)
# Forms that need a noun after them; without one the noun of the entity takes their place.
ADJECTIVES = frozenset(
    "aerate aerated aerates aerating aortic atelectatic bronchiectatic calcific calcified cardiomediastinal collapsed "
    "collapses collapsing congested congestive consolidated consolidative deformed dilated distended edematous "
    "embolic emphysematous engorged fibrotic fractured granulomatous herniated hilar hyperexpanded hyperinflate "
    "hyperinflated infiltrative nodular obscure obscured obscures obscuring opacified overinflated parahilar "
    "perihilar pneumonic sarcoid thickened tuberculous".split()
) | {"cardio mediastinal", "hyper expanded", "hyper inflated", "peri hilar"}
NOUNS = {
    "aerate": "aeration",
    "cardiomediastinal": "cardiomediastinal silhouette",
    "chf": "heart failure",
    "COPD": "copd",
    "hilar": "hilum",
    "hyperinflate": "hyperinflation",
    "obscure": "obscuration",
    "perihilar": "perihilar region",
}

DEGREES = frozenset(
    "borderline extensive faint large marked markedly massive mild mildly minimal minimally moderate moderately "
    "severe severely significant slight slightly small subtle tiny trace vague".split()
)
PLACES = frozenset(  # nouns; a list of adjectives ends at them
    "air airspace apex arch base bases bone chest clavicle disc disk hemithorax lingula lobe lobes lung lungs midlung "
    "rib ribs space tissue zone zones".split()
)
STABLE = frozenset("persistent stable unchanged".split())
NORMAL = frozenset("normal unremarkable".split())
DESCRIBING = NORMAL | STABLE
DESCRIBING |= set(
    "accentuated atherosclerotic blunted calcified clear crowded decreased dilated distended ectatic elevated "
    "engorged enlarged flattened full hyperexpanded hyperinflated improved increased indistinct large obscured "
    "prominent sharp small tortuous uncoiled unfolded widened worsened".split()
)
MODIFIERS = DEGREES | PLACES | DESCRIBING - {"clear", "full", "sharp"}
MODIFIERS |= set(
    # where
    "abdominal alveolar anterior apical ascending basal basilar biapical bibasal bibasilar bilateral bilaterally "
    "bony cardiac cardiopulmonary central clavicular costal descending diaphragmatic hiatal hiatus inferior "
    "infracarinal infrahilar internal interstitial jugular lateral left lingular lower medial mediastinal mid "
    "middle osseous osseus paratracheal parenchymal peribronchial pericardial peripheral pleural posterior "
    "pulmonary retrocardiac retrosternal right sided skeletal soft spinal subcarinal subclavian subpleural "
    "superior suprahilar thoracic unilateral upper vascular venous vertebral "
    # of what kind
    "active appearing asymmetric cavitary circular coarse compression compressive confluent dense dependent "
    "diffuse discoid displaced focal glass ground hazy indwelling inserted irregular layering bandlike linear "
    "lobar loculated multifocal multiple noncalcified nondisplaced numerous partial patchy peripherally platelike "
    "poorly reticular reticulonodular round rounded scattered segmental several single sized solitary spiculated "
    "streaky subsegmental superimposed suspicious wedge well "
    # since when
    "acute additional chronic decreasing degenerative healed healing improving increasing new old other previous "
    "prior progressive recurrent remote residual resolving subacute worsening".split()
)
# Passed over on the way from an entity to its modifiers.
SKIPPED = frozenset(
    "definite definitive definitely obvious convincing visible overt frank evident discrete gross appreciable".split()
)
# They narrow nothing: "no focal consolidation" denies any.
NEUTRAL = STABLE | set("focal hiatal hiatus lung lungs parenchymal pleural pulmonary significant suspicious".split())

LINKS = frozenset("appear appeared appears are be is remain remained remains was were".split())
VERBS = LINKS | set(
    "been being demonstrate demonstrates had has have identified noted present reveals seen show shows".split()
)
# They are no noun after an adjective such as "calcified".
NOT_NOUNS = VERBS | set(
    "a again along also an and as at bilaterally but by compatible consistent could due for from greater in may might "
    "no nor not of on or over predominance related secondary since than that the there these this those through "
    "throughout to visualized which with within without".split()
)
JOINERS = ("/", "-", "and", "to")  # of modifiers: "right and left", "mild to moderate", "left-sided"
# How a part of a list begins that is no more denied: "no effusion, small nodule".
SWITCHES = DEGREES - {"significant", "borderline", "large", "massive"} | STABLE | {"a", "an", "the", "there", "this"}
LONGEST_LIST = 60  # units that may follow a comma before an "or"
# Between a verb and what it says.
PASSED_OVER = frozenset(
    "again also be grossly in now only otherwise overall size somewhat stably still to top very within".split()
)
# "mildly hyperinflated" -> "mild hyperinflation"
QUALITIES = {word: word.removesuffix("ly") for word in DEGREES if word.endswith("ly")} | {
    "well": "good",
    "poorly": "poor",
}
IRREGULAR = {
    "aortae": "aorta",
    "apices": "apex",
    "atelectases": "atelectasis",
    "bronchiectases": "bronchiectasis",
    "emboli": "embolus",
    "fibroses": "fibrosis",
    "granulomata": "granuloma",
    "herniae": "hernia",
    "hila": "hilum",
    "pneumothoraces": "pneumothorax",
}

_CHANGE = r"(?:(?:significant|interval|appreciable|substantial|definite|major|obvious|apparent|gross)\s+)*change"
_SEEN = (
    r"(?:seen|identified|present|visuali[sz]ed|evident|demonstrated|appreciated|noted|detected|found|observed|"
    r"apparent)"
)
_PARTLY = r"(?:nearly|almost|partially|partly|mostly|largely|incompletely|not|not\s+completely)"
_BE = r"(?:is|are|was|were)"
# {what it does: its words}, tried in this order. "next" holds for what follows, "before" for what precedes, "around"
# for both; "none" does nothing, and is there for the words in it; "measure" is a size, which is one piece as a cue is.
CUES = {
    "none": (
        rf"\b(?:no|without)\s+{_CHANGE}\b(?:\s+(?:in|of))?",
        r"\bnot\s+(?:\w+\s+)?changed\b",
        rf"\b{_PARTLY}\s+(?:resolved|cleared)\b",
        r"\bnot\s+only\b",
        r"\bno\s+doubt\b",
        r"\bno\s+(?:suggestion\s+of\s+)?(?:progression|enlargement|growth|increase)\s+(?:of|in)\b",
        r"\b(?:may|might|could|can|would)\s+explain\b",
    ),
    "doubt before": (
        r"\b(?:can\s?not|could\s+not|may\s+not)\s+(?:\w+\s+)?be\s+(?:\w+\s+)?(?:excluded|ruled\s+out)\b",
        rf"\b(?:{_BE}\s+)?not\s+(?:\w+\s+)?(?:excluded|ruled\s+out)\b",
        rf"\b(?:{_BE}|remains?)\s+(?:also\s+)?(?:possible|suspected|likely|probable|questioned|questionable|considered)\b",
        rf"\b{_BE}\s+a\s+(?:possibility|consideration|concern)\b",
        r"\b(?:may|might|could)\s+(?:also\s+)?be\s+(?:present|seen)\b",
    ),
    "no before": (
        rf"\b(?:{_BE}\s+)?(?:not|no\s+longer)\s+(?:(?:clearly|definitely|well|convincingly)[\s-]+)?{_SEEN}\b",
        rf"\b(?:{_BE}\s+)?(?:absent|excluded|ruled\s+out|unlikely)\b",
        r"\b(?:has|have)\s+(?:(?:now|since|completely|essentially)\s+)*(?:resolved|cleared)\b",
        r"\b(?:has|have)\s+been\s+removed\b",
        rf"\b{_BE}\s+(?:now\s+)?resolved\b",
    ),
    "doubt next": (
        r"\b(?:can\s?not|could\s+not|(?:does|do)\s+not|not)\s+(?:\w+\s+)?(?:exclude|rule\s+out)\b",
        r"\b(?:may|might|could|can\s+be|can\s+represent|perhaps|presumed|presumably|equivocal|borderline)\b",
        r"\b(?:possibl[ey]|probabl[ey]|likely|suspect(?:s|ed)?|suspicion|suspicious\s+for|suggest(?:s|ed|ing|ive)?)\b",
        r"\bquestion(?:s|ed|able|ing)?\b|\bworrisome\s+for\b|\bconcern(?:ing|ed)?\s+(?:for|of)\b|\braises?\b",
        r"\bmost\s+(?:represent\w*|compatible|consistent|in\s+keeping)\b",  # "most XXXX representing"
        r"\b(?:rule\s+out|r/o|exclude|differential|consider(?:ations?|ed)?)\b",
    ),
    "doubt around": (r"\b(?:versus|vs)\b\.?",),
    "no next": (
        r"\b(?:no|not|without|never|neither|nor)\b",
        r"\b(?:free|clear|absence|resolution|clearing|removal)\s+of\b|\bnegative\b(?:\s+for\b)?",
        r"\b(?:rather\s+than|instead\s+of|resolved)\b",
    ),
    "silence": (
        r"\bif\b|\brecommend\w*|\bcorrelat\w+|\bhistory\s+of\b|\b(?:evaluat\w+|assess\w*)\s+for\b|\bfollow-?\s?up\b",
    ),
    "measure": (r"\b\d+(?:\.\d+)?(?:\s*x\s*\d+(?:\.\d+)?)*(?:\s|-)?(?:mm|cm)\b",),
    "end": (
        r"\b(?:but|however|although|though|yet|whereas|while|except(?:\s+for)?|with\s+the\s+exception\s+of)\b",
        r"\b(?:apart\s+from|aside\s+from|other\s+than|otherwise)\b",
    ),
}
_EFFECTS = [effect for effect, patterns in CUES.items() for _ in patterns]
_CUES = re.compile("|".join(f"({pattern})" for patterns in CUES.values() for pattern in patterns))

_SENTENCE_END = re.compile(r"(?<=[.?!;])\s+|\n")
_TOKENS = re.compile(r"and/or|[^\W_]+(?:'\w+)?|[^\w\s]")
_WHERE = re.compile(
    r"\s+(?:in|at|within|throughout|involving|over|of)\s+(?:(?:the|both|each)\s+)*"
    r"(?:(?:left|right|lower|upper|middle|mid|medial|lateral|anterior|posterior|bilateral)\s+)*"
    r"(?:(?:lungs?|lobes?|midlung|costophrenic|thoracic|lumbar|cervical)\s+)*"
    r"(?:lungs?|lobes?|bases?|apex|apices|zones?|midlungs?|hemithorax|lingula|mediastinum|spine|angles?|chest|side)\b"
)
_ABBREVIATIONS = re.compile(r"\b(?:chf|copd|tb)\b")
_OF = re.compile(r"\s+of\s+(?:(?:the|both)\s+)?")
# What is said of anatomy by a noun: after it, "right hemidiaphragm elevation", or before it, "elevation of the ...".
TURNS = frozenset("ectasia elevation enlargement eventration flattening fullness prominence tortuosity".split())
_TURNS_OF = re.compile(
    r"((?:\b(?:chronic|marked|mild|minimal|moderate|partial|persistent|relative|slight|stable|unchanged)\s+)*"
    rf"\b(?:{'|'.join(sorted(TURNS))}|atherosclerosis|(?:atherosclerotic|calcific)\s+(?:changes?|disease)|blurring|"
    r"loss|uncoiling|unfolding|widening)\s+(?:of|to|in)\s+(?:(?:the|both)\s+)?|"
    r"\b(?:normal|stable|unchanged|unremarkable)\s+(?:appearance|configuration)\s+of\s+(?:the\s+)?)$"
)
# An attribute of what stands before it: "normal in size and contour".
_ATTRIBUTE = re.compile(r"\b(?:in|for|of)\s+(?:\w+\s+)?(?:and\s+|/)?contours?$|\bsize\s+contours?$")
_NORMAL_LIMITS = re.compile(r"\bwithin\s+normal\s+limits?|\bwithin\s+the\s+limits\s+of\s+normal")

_GAP = (  # between what is spoken of and what is said: a list and a verb
    r"(?:(?!\b(?:borderline|but|enlarged|except|heart|is\s+[a-z]+\s+is|lungs?\s+(?:is|are)|no|not|otherwise|top|"
    r"upper\s+limits?|which|with|without)\b)[a-z ,/-]){0,80}?"
)
_DEGREE = r"(?P<degree>mild|moderate|severe|marked|slight|minimal|massive)"
_HEART = r"\b(?:heart|cardiac\s+(?:silhouette|shadow|size))\b"
# (what a sentence says, entity, state)
IMPLIED = (
    (
        re.compile(rf"{_HEART}{_GAP}\b(?:normal|unremarkable)\b|{_HEART}{_GAP}\bnot\s+(?:\w+\s+)?enlarged\b"),
        "cardiomegaly",
        NEGATIVE,
    ),
    (re.compile(r"\bnormal(?:[-\s]sized?)?\s+(?:heart|cardiac\s+(?:size|silhouette))\b"), "cardiomegaly", NEGATIVE),
    (
        re.compile(
            rf"\bborderline\s+(?:enlarge\w+\s+(?:of\s+(?:the\s+)?)?)?(?:heart|cardiac)\b|"
            rf"{_HEART}[a-z ,]{{0,40}}?\b(?:borderline|upper\s+limits?(?:\s+of)?\s+normal|top[-\s]normal)\b"
        ),
        "cardiomegaly",
        UNCERTAIN,
    ),
    (
        re.compile(rf"(?:{_HEART}|\bcardiomediastinal\s+silhouette){_GAP}(?:{_DEGREE}ly\s+)?\benlarged\b"),
        "cardiomegaly",
        POSITIVE,
    ),
    (
        re.compile(
            rf"(?:{_DEGREE}(?:ly)?\s+)?\benlarge(?:d|ment\s+of(?:\s+the)?)\s+cardiac\s+(?:silhouette|shadow)\b"
        ),
        "cardiomegaly",
        POSITIVE,
    ),
    (
        re.compile(
            rf"\b(?:lungs|lung\s+fields|lung\s+zones)\b{_GAP}\b(?:clear(?!\s+of)|normal(?!\s+(?:in\s+)?volume))\b"
            r"(?!\s+(?:except|apart|aside|other\s+than|with\s+the\s+exception))"
        ),
        "opacity",
        NEGATIVE,
    ),
    (re.compile(r"\bclear\s+(?:bilateral\s+)?(?:lungs|lung\s+fields)\b"), "opacity", NEGATIVE),
)


# --- A report --------------------------------------------------------------------------------------------------------


def distilled(findings: str | None, impression: str | None) -> str:
    """A report's facts as short sentences in one line, in its order; "" where it says nothing of any entity.

    Args:
        findings, impression: the two sections; None where there is none. Marks of de-identification may stand in them.
    """
    sections = (without_masks(section or "") for section in (findings, impression))
    return " ".join(map(sentence_of, facts_of("\n".join(sections))))


def sentence_of(fact: Fact) -> str:
    """ "There is no effusion.", "There may be mild edema.", "There are bilateral opacities." """
    noun = fact.thing.partition(" of ")[0]
    verb = "are" if singular(noun) != noun else "is"
    verb = {NEGATIVE: "is no", UNCERTAIN: "may be"}.get(fact.state, verb)
    return f"There {verb} {fact.thing}{fact.place and ' '}{fact.place}."


def sentences_of(text: str) -> list[str]:
    """The sentences of a text; they end where lines do, too."""
    return _SENTENCE_END.split(text)


def facts_of(text: str) -> list[Fact]:
    """What a text says of the entities, in its order, each thing once; of what contradicts itself the later.

    Sentences end where lines do, too.
    """
    facts: list[Fact] = []
    for sentence in sentences_of(text):
        for fact in facts_of_sentence(sentence):
            if fact.implied and any(fact.entities[-1] == older.entities[-1] for older in facts if not older.implied):
                continue
            kept = [older for older in facts if not _gives_way(older, fact)]
            facts = kept if any(_says(older, fact) for older in kept) else [*kept, fact]
    return facts


def _gives_way(older: Fact, newer: Fact) -> bool:
    """Whether a fact goes where a later one of the report stands: it is denied by it, or said more precisely."""
    if older.entities[-1] != newer.entities[-1]:
        return False
    if older.implied and not newer.implied:
        return True
    before, after = _restrictions(older), _restrictions(newer)
    if older.entities[-1] in ANATOMY:
        words_before, words_after = set(older.thing.split()), set(newer.thing.split())
        return set(older.entities) == set(newer.entities) and bool(words_before & NORMAL) != bool(words_after & NORMAL)
    if older.state == newer.state:
        return before != after and (after < before if newer.state == NEGATIVE else before < after)
    if newer.state == NEGATIVE:
        return after <= before
    if older.state == NEGATIVE:
        return before <= after
    return before <= after or after <= before


def _says(older: Fact, newer: Fact) -> bool:
    """Whether a fact says all that a later one does."""
    if older.state != newer.state or older.entities[-1] != newer.entities[-1]:
        return False
    before, after = _restrictions(older), _restrictions(newer)
    if older.entities[-1] in ANATOMY:
        return older[:3] == newer[:3]
    return before <= after if newer.state == NEGATIVE else after <= before


def _restrictions(fact: Fact) -> set[str]:
    """What narrows a fact: sides, degrees, places, and other entities in it."""
    words = set(re.findall(r"[a-z]+", fact.place)) & (MODIFIERS | {"apices", "mediastinum", "spine"})
    words |= set(re.findall(r"[a-z]+", fact.thing)) & MODIFIERS
    return {word.removesuffix("s") for word in words - NEUTRAL} | set(fact.entities[:-1])


# --- A sentence ------------------------------------------------------------------------------------------------------


class _Unit(NamedTuple):
    """A piece of a sentence: its kind is "entity", "word", "mark" (of punctuation), or what a cue does."""

    kind: str
    start: int
    end: int
    text: str
    entity: str = ""


class _Thing(NamedTuple):
    """A noun phrase around one or more entities.

    Attributes:
        first, last: its units.
        words: of the phrase before the noun.
        noun: that it ends with.
        entities: that it names; what it is comes last.
        anatomy: whether it is always in the picture.
    """

    first: int
    last: int
    words: tuple[str, ...]
    noun: str
    entities: tuple[str, ...]
    anatomy: bool


def facts_of_sentence(sentence: str) -> list[Fact]:
    """What one sentence says, in its order."""
    text = joined(sentence.lower())
    units = _units(text)
    found = list(_said(text, units)) if any(unit.kind == "entity" for unit in units) else []
    explicit = {entity for _, fact in found for entity in fact.entities}
    for pattern, entity, state in IMPLIED:
        match = pattern.search(text)
        if match and entity not in explicit:
            degree = match.groupdict().get("degree")
            thing = f"{degree} {entity}" if degree else entity
            found.append((match.start(), Fact(thing, state, (entity,), implied=True)))
            explicit.add(entity)
    return [fact for _, fact in sorted(found, key=lambda item: item[0])]


def _units(text: str) -> list[_Unit]:
    marked = [_Unit("entity", start, end, text[start:end], entity) for start, end, entity in mentions(text)]
    taken = [(unit.start, unit.end) for unit in marked]
    for match in _CUES.finditer(text):
        if not any(start < match.end() and match.start() < end for start, end in taken):
            marked.append(_Unit(_EFFECTS[match.lastindex - 1], match.start(), match.end(), match[0]))
    marked.sort(key=lambda unit: unit.start)
    units, position = [], 0
    for unit in [*marked, _Unit("", len(text), len(text), "")]:
        for match in _TOKENS.finditer(text, position, unit.start):
            units.append(_Unit("word" if match[0][0].isalnum() else "mark", match.start(), match.end(), match[0]))
        units.append(unit)
        position = unit.end
    return units[:-1]


def _said(text: str, units: list[_Unit]) -> Iterator[tuple[int, Fact]]:
    """(where it stands, fact) of what a sentence says of the entities that it names."""
    things = _things(units)
    states = _states(units, things)
    described, within = "", 0  # what was said of the last thing of anatomy; up to here a predicate was read
    opening = text.partition(" ")[0]
    if opening in NORMAL | STABLE and not any(unit.text in LINKS for unit in units):
        described = opening  # "normal cardiac size, mediastinum and vasculature"
    for number, (thing, state) in enumerate(zip(things, states, strict=True)):
        start, end = units[thing.first].start, units[thing.last].end
        if state is None or thing.first < within or _ATTRIBUTE.search(text[:end]):
            continue
        words, noun, entities, place = thing.words, thing.noun, thing.entities, ""
        if thing.anatomy:
            turned = _TURNS_OF.search(text[:start])
            predicate, of_predicate, after = _predicate(text, units, thing.last + 1)
            if turned:
                words = (*turned[1].split(), *words)
            elif predicate:
                words, entities = (*predicate, *words), (*of_predicate, *entities)
                if of_predicate:  # "the aorta may be dilated": the doubt stands before the predicate
                    within = after
                    inside = [other for other, of in zip(states, things, strict=True) if thing.last < of.first < after]
                    state = next(filter(None, inside), state)
            elif described and not set(words) & DESCRIBING:
                words = (described, *words)
            described = next((word for word in words if word in NORMAL | STABLE), described)
            if state == NEGATIVE or not (turned or set(words) & (DESCRIBING | DEGREES | set(QUALITIES.values()))):
                continue
        else:
            preposition = _OF.match(text, end)
            following = things[number + 1] if number + 1 < len(things) else None
            if preposition and following and following.anatomy and units[following.first].start == preposition.end():
                place = f"of the {' '.join((*following.words, following.noun))}"
                entities, within = (*following.entities, *entities), following.last + 1
            elif where := _WHERE.match(text, end):
                place = where[0].strip()
        phrase = " ".join((*words, singular(noun) if state == NEGATIVE else noun))
        yield start, Fact(re.sub(r"\s*([/-])\s*", r"\1", phrase), state, entities, place)


def _things(units: list[_Unit]) -> list[_Thing]:
    """The noun phrases, in order: modifiers and entities that follow each other, and a noun after an adjective."""
    things, index = [], 0
    while index < len(units):
        if units[index].kind != "entity":
            index += 1
            continue
        last = index
        while (following := _next_entity(units, last)) is not None:
            last = following
        first, words = _modifiers(units, index)
        words += [unit.text for unit in units[index:last]]
        entities = tuple(unit.entity for unit in units[index : last + 1] if unit.kind == "entity")
        end, noun = last, units[last].text
        if _is_adjective(units[last]):
            end, nouns = _nouns(units, last)
            if nouns:
                noun = " ".join((noun, *nouns))
            else:
                words = [QUALITIES.get(word, word) for word in words]
                noun = NOUNS.get(entities[-1], entities[-1])
        elif entities[-1] in ANATOMY and end + 1 < len(units) and units[end + 1].text in TURNS:
            end, noun = end + 1, f"{noun} {units[end + 1].text}"  # "right hemidiaphragm elevation"
        noun = _ABBREVIATIONS.sub(lambda match: match[0].upper(), noun)
        anatomy = entities[-1] in ANATOMY and (end == last or units[end].text in ("region", "regions", "structures"))
        things.append(_Thing(first, end, tuple(words), noun, entities, anatomy))
        index = end + 1
    return things


def _is_adjective(unit: _Unit) -> bool:
    return re.sub(r"[-\s]+", " ", unit.text) in ADJECTIVES


def _next_entity(units: list[_Unit], index: int) -> int | None:
    """The next entity of a noun phrase: "cardiomediastinal silhouette", "perihilar/upper lobe opacities"."""
    if index + 1 < len(units) and units[index + 1].kind == "entity":
        return index + 1
    if not _is_adjective(units[index]):
        return None
    for following in range(index + 1, min(index + 6, len(units))):
        unit, after = units[following], units[following + 1 : following + 2]
        if unit.kind == "entity":
            return following
        joins = unit.text in ("and", "or") and after and after[0].text in MODIFIERS - DEGREES - {"well", "poorly"}
        if not _modifies(unit) and unit.text not in ("/", "-") and not joins:
            return None
    return None


def _modifiers(units: list[_Unit], index: int) -> tuple[int, list[str]]:
    """The first unit of the phrase that ends in an entity, and the words before the entity that are kept."""
    first, words = index, []
    for before in range(index - 1, -1, -1):
        unit = units[before]
        previous = units[before - 1].text if before > 0 else ""
        if _modifies(unit):
            first, words = before, [unit.text, *words]
        elif unit.text in SKIPPED:
            first = before
        elif unit.text == "," and previous in DEGREES:  # "small, nodular opacity"
            continue
        elif unit.text in JOINERS and previous in MODIFIERS:
            # "of the left lung and effusion", "the heart is normal and cardiomediastinal ..."
            if unit.text in ("and", "to") and previous in PLACES | NORMAL | STABLE:
                break
            words = [unit.text, *words]
        else:
            break
    while words and words[0] in JOINERS:
        words = words[1:]
    return first, words


def _modifies(unit: _Unit) -> bool:
    return unit.kind == "measure" or unit.kind == "word" and unit.text in MODIFIERS


def _nouns(units: list[_Unit], index: int) -> tuple[int, list[str]]:
    """The last unit and the nouns that follow an adjective: "hilar lymph nodes", "hilar or mediastinal adenopathy"."""
    words: list[str] = []
    for position in range(index + 1, min(index + 5, len(units))):
        unit, after = units[position], units[position + 1 : position + 2]
        joins = unit.text in ("and", "or", "/") and not words and after and after[0].text in MODIFIERS
        is_noun = unit.kind == "word" and unit.text.isalpha() and unit.text not in NOT_NOUNS
        if not (joins or is_noun and not unit.text.endswith("ing")) or len(words) == 4:
            break
        words.append(unit.text)
    if not words or words[-1] in MODIFIERS - PLACES or words[-1] in ("and", "or", "/"):
        return index, []
    return index + len(words), words


def _states(units: list[_Unit], things: list[_Thing]) -> list[str | None]:
    """The state of each thing; None where nothing is said of this picture."""
    states: list[str | None] = [POSITIVE] * len(things)
    at = {thing.first: number for number, thing in enumerate(things)}
    scope: str | None = POSITIVE
    latest: int | None = None
    for index, unit in enumerate(units):
        if index in at:
            latest = at[index]
            states[latest] = scope
        previous = units[index - 1].text if index else ""
        if unit.kind in ("none", "end"):
            scope = POSITIVE
        elif unit.kind == "silence":
            scope = None
        elif unit.kind == "no next":
            scope = None if scope is None else NEGATIVE
        elif unit.kind in ("doubt next", "doubt around"):
            if scope == POSITIVE or scope == NEGATIVE and previous in (",", "and"):
                scope = UNCERTAIN
            if unit.kind == "doubt around" and latest is not None and states[latest] == POSITIVE:
                if "," not in {between.text for between in units[things[latest].last : index]}:
                    states[latest] = UNCERTAIN
        elif unit.kind in ("no before", "doubt before"):
            for number in _before(units, things, index):
                if states[number] is not None:
                    states[number] = NEGATIVE if unit.kind == "no before" else UNCERTAIN
            scope = POSITIVE
        elif unit.text in (",", "and", "with") and _ends_scope(units, index, scope):
            scope = POSITIVE
    for number, thing in enumerate(things):
        beside = {units[near].text for near in (thing.first - 1, thing.last + 1) if 0 <= near < len(units)}
        if beside & {"or", "and/or"} and states[number] == POSITIVE and not thing.anatomy:
            states[number] = UNCERTAIN
    return states


def _ends_scope(units: list[_Unit], index: int, scope: str | None) -> bool:
    """Whether a comma, "and" or "with" ends what a negation or a doubt before it holds for."""
    if scope == POSITIVE:
        return False
    if units[index].text == "with":
        return scope == NEGATIVE
    rest = units[index + 1 : index + 1 + LONGEST_LIST]
    rest = list(itertools.takewhile(lambda unit: unit.kind != "end", rest))
    switches = bool(rest) and rest[0].text in SWITCHES
    goes_on = any(unit.text in ("or", "nor") for unit in rest)
    if units[index].text == "and":
        return switches
    if scope == NEGATIVE:
        return switches and not goes_on
    return switches or not any(unit.text in ("or", "and", "versus") for unit in rest)


def _before(units: list[_Unit], things: list[_Thing], index: int) -> list[int]:
    """The things that a cue after them is about: "pneumothorax and effusion are not seen"."""
    found, number = [], len(things) - 1
    for position in range(index - 1, -1, -1):
        while number >= 0 and things[number].first > position:
            number -= 1
        unit = units[position]
        if number >= 0 and things[number].first <= position <= things[number].last:
            if position == things[number].first:
                found.append(number)
        elif unit.kind not in ("word", "mark") or unit.text in VERBS or unit.text in ("with", "which", ";", ":"):
            break
    return found


def _predicate(text: str, units: list[_Unit], index: int) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """What is said of anatomy after it: words, the entities among them, and the unit after the last of them.

    "... and vasculature are within normal limits" -> ("normal",); "... is mildly dilated" -> ("mildly", "dilated").
    """
    position = index
    limit = min(index + 12, len(units))
    while position < limit and units[position].text not in LINKS:
        unit = units[position]
        if position == index and (unit.text in DESCRIBING or _NORMAL_LIMITS.match(text, unit.start)):
            break
        if (
            unit.kind not in ("word", "entity", "doubt next")
            and unit.text != ","
            or unit.text in VERBS
            or unit.text == "with"
        ):
            return (), (), index
        position += 1
    words: list[str] = []
    entities: list[str] = []
    while position < min(limit + 8, len(units)):
        unit = units[position]
        following = units[position + 1 : position + 3]
        if _NORMAL_LIMITS.match(text, unit.start):
            return (*words, "normal"), tuple(entities), position + 1
        if unit.text in DESCRIBING or unit.kind == "entity" and _is_adjective(unit) and unit.entity not in ANATOMY:
            words.append(unit.text)
            entities += [unit.entity] if unit.entity else []
        elif unit.text in DEGREES:
            words.append(unit.text)
        elif unit.text == "and" and words and following and (following[0].text in DESCRIBING | DEGREES | ADJECTIVES):
            words.append("and")
        elif unit.text not in LINKS and unit.text not in PASSED_OVER and not unit.kind.startswith("doubt next"):
            break
        position += 1
    while words and words[-1] in DEGREES | {"and"}:
        words.pop()
    return tuple(words), tuple(entities), position


def singular(noun: str) -> str:
    """The last word of a noun in the singular: "lung nodules" -> "lung nodule"."""
    *before, word = noun.split(" ")
    if word in IRREGULAR:
        word = IRREGULAR[word]
    elif word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return " ".join((*before, word))
