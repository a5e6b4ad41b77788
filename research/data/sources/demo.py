"""The embedded default: short English reviews, made by a small grammar, whose test split says things in words that training never shows.

The sentiment words of the three splits are disjoint and nearly half of the constructions of test occur nowhere else, so what a model
learns from the 480 training reviews alone does not carry over: it has to know English already.
"""

import random

SIZES = {"train": 480, "dev": 120, "test": 1000}
LABELS = ("negative", "positive")
SHARES = {"plain": 0.72, "negated": 0.12, "contrast": 0.16}
"""How often the sentence that decides is of each kind."""

SUBJECTS = {  # what is reviewed: what one does with it, and its aspects; those of stories take the words for stories as well
    "film": ("watched it", ("acting", "plot", "ending", "dialogue", "script", "characters", "opening scene")),
    "novel": ("read it", ("story", "writing", "ending", "characters", "first chapter", "dialogue")),
    "play": ("saw it", ("acting", "script", "second act", "characters", "staging", "dialogue")),
    "series": ("watched it", ("plot", "pilot", "script", "characters", "last episode", "acting")),
    "hotel": ("stayed there", ("room", "service", "staff", "breakfast", "location", "pool", "view")),
    "restaurant": ("ate there", ("food", "service", "menu", "soup", "desserts", "wine list", "waiters")),
    "phone": ("bought it", ("battery", "screen", "camera", "sound", "keyboard", "speakers")),
    "laptop": ("ordered it", ("keyboard", "screen", "battery", "sound", "webcam", "speakers")),
    "museum": ("went there", ("collection", "café", "audio guide", "staff", "garden", "guides")),
    "airline": ("flew with them", ("food", "crew", "seats", "service", "check-in", "website")),
    "gym": ("trained there", ("trainers", "equipment", "showers", "location", "classes", "staff")),
}
STORIES = ("film", "novel", "play", "series")
WHEN = (
    "in March",
    "last autumn",
    "on a rainy Tuesday",
    "over the weekend",
    "two weeks ago",
    "in the holidays",
    "on Friday evening",
    "last year",
)
WITH = ("with my sister", "with a friend", "on my own", "with two colleagues", "with my parents", "with an old classmate")
INTENSIFIERS = ("", "", "really ", "truly ", "so ")

ADJECTIVES = {
    "train": {
        "positive": ("good", "great", "excellent", "nice", "amazing", "fantastic", "perfect", "lovely", "pleasant", "special"),
        "negative": ("bad", "awful", "terrible", "poor", "horrible", "disappointing", "weak", "annoying", "useless", "frustrating"),
    },
    "dev": {
        "positive": ("wonderful", "fabulous", "remarkable", "incredible", "pleasing"),
        "negative": ("horrid", "unpleasant", "inferior", "disgraceful", "rotten"),
    },
    "test": {
        "positive": ("superb", "delightful", "outstanding", "splendid", "marvellous", "terrific", "magnificent", "brilliant", "impressive"),
        "negative": ("dreadful", "atrocious", "abysmal", "lousy", "appalling", "dismal", "pathetic", "mediocre", "shoddy"),
    },
}
STORY_ADJECTIVES = {
    "train": {"positive": ("funny", "exciting", "interesting", "moving"), "negative": ("boring", "dull", "silly", "predictable")},
    "dev": {"positive": ("thrilling", "engaging", "touching"), "negative": ("tiresome", "bland", "stale")},
    "test": {
        "positive": ("gripping", "captivating", "enchanting", "heartwarming", "witty"),
        "negative": ("tedious", "dreary", "lifeless", "monotonous", "forgettable"),
    },
}
VERBS = {
    "train": {"positive": ("love", "like", "enjoy"), "negative": ("hate", "dislike")},
    "dev": {"positive": ("appreciate", "praise"), "negative": ("loathe",)},
    "test": {"positive": ("adore", "admire"), "negative": ("despise", "detest")},
}


def reviews(seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Splits train (480), dev (120) and test (1000) of (text, label), each half negative and half positive, no text twice."""
    rng = random.Random(seed)
    seen: set[str] = set()
    return {split: _split(rng, split, size, seen) for split, size in SIZES.items()}


def _split(rng: random.Random, split: str, size: int, seen: set[str]) -> list[tuple[str, str]]:
    """`size` reviews that are not in `seen`, which they join."""
    rows = []
    while len(rows) < size:
        label = LABELS[len(rows) % 2]
        text = _review(rng, split, label)
        if text not in seen:
            seen.add(text)
            rows.append((text, label))
    rng.shuffle(rows)
    return rows


def _review(rng: random.Random, split: str, label: str) -> str:
    """One to three sentences: the one that decides, at times a neutral one before it and one of the same opinion after it."""
    subject = rng.choice(tuple(SUBJECTS))
    deed, aspects = SUBJECTS[subject]
    first, second = rng.sample(aspects, 2)
    kind = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    sentences = [_decide(rng, split, label, kind, subject, first)]
    if rng.random() < 0.5:
        sentences.insert(0, f"I {deed} {rng.choice(WHEN)} {rng.choice(WITH)}")
    if rng.random() < 0.35:
        sentences.append(_plain(rng, split, label, subject, second))
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _decide(rng: random.Random, split: str, label: str, kind: str, subject: str, aspect: str) -> str:
    if kind == "negated":
        return _negated(rng, split, label, subject, rng.choice((aspect, subject)))
    if kind == "contrast":
        return _contrast(rng, split, label, subject, aspect)
    return _plain(rng, split, label, subject, rng.choice((aspect, subject)))


def _plain(rng: random.Random, split: str, label: str, subject: str, noun: str) -> str:
    adjective, verb = _words(rng, split, label, subject)
    forms = [
        f"the {noun} {_was(noun)} {rng.choice(INTENSIFIERS)}{adjective}",
        f"I thought the {noun} {_was(noun)} {adjective}",
        f"I {_past(verb)} the {noun}",
    ]
    if split == "test":
        forms += [f"I was struck by how {adjective} the {noun} {_was(noun)}", f"my friends all called the {noun} {adjective}"]
    return rng.choice(forms)


def _negated(rng: random.Random, split: str, label: str, subject: str, noun: str) -> str:
    """Denies a word of the other class."""
    adjective, verb = _words(rng, split, _other(label), subject)
    forms = [f"the {noun} {_was(noun)} {no} {adjective}" for no in ("not", "never", "not at all")] + [f"I did not {verb} the {noun}"]
    if split == "test":
        forms += [f"the {noun} {_was(noun)} {no} {adjective}" for no in ("by no means", "not in the least", "hardly")]
    return rng.choice(forms)


def _contrast(rng: random.Random, split: str, label: str, subject: str, aspect: str) -> str:
    """Concedes the other opinion about one aspect; the opinion on the whole decides."""
    main, (adjective, verb) = _plain(rng, split, label, subject, subject), _words(rng, split, _other(label), subject)
    aside = rng.choice((f"the {aspect} {_was(aspect)} {adjective}", f"I {_past(verb)} the {aspect}"))
    forms = [f"although {aside}, {main}", f"{main}, even though {aside}"]
    if split == "test":
        forms += [f"despite the {adjective} {aspect}, {main}", f"granted, {aside}, but even so {main}"]
    return rng.choice(forms)


def _words(rng: random.Random, split: str, label: str, subject: str) -> tuple[str, str]:
    """An adjective that suits the subject, and a verb (its base form)."""
    adjectives = ADJECTIVES[split][label] + (STORY_ADJECTIVES[split][label] if subject in STORIES else ())
    return rng.choice(adjectives), rng.choice(VERBS[split][label])


def _other(label: str) -> str:
    return LABELS[1 - LABELS.index(label)]


def _was(noun: str) -> str:
    return "were" if noun.endswith("s") and noun != "series" else "was"


def _past(verb: str) -> str:
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"
