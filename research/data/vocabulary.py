"""Words of a text, for models that have no tokenizer of their own: which there are, and a tokenizer that knows them."""

import collections
from collections.abc import Iterable, Sequence

SPECIAL = PAD, UNKNOWN, BETWEEN = "[PAD]", "[UNK]", "[SEP]"
# Scripts that put no blanks between words: each of their characters, with the marks on it, is a word.
CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\x{30fc}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# Elsewhere: words, apart from what is joined to them as treebanks and word vectors have it ("do" "n't", "it" "'s"), and each other sign.
WORD = r"LETTER+?(?=n't(?!LETTER))|n't(?!LETTER)|'LETTER+|LETTER+|[^\w\s]"
RULES = {
    1: WORD.replace("LETTER", r"\w"),  # a run of such characters is one word: vocabularies of runs before 2026-11-27
    2: rf"[{CHARACTERS}]\p{{M}}*|" + WORD.replace("LETTER", rf"[\w&&[^{CHARACTERS}]]"),
}


def words(texts: Iterable[str], least: int = 1) -> tuple[str, ...]:
    """The words that stand in `texts` at least `least` times, lower case, the most frequent first and equals by alphabet."""
    splitter, counts = tokenizer(()).backend_tokenizer, collections.Counter()
    for text in texts:
        counts.update(_split(splitter, text))
    return tuple(sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word)))


def _split(splitter, text: str) -> list[str]:
    return [word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(text))]


def tokenizer(known: Sequence[str]):
    """Return a fast tokenizer of `transformers` in which `known[i]` has the id i + 3, after [PAD], [UNK] and [SEP], which parts pairs.

    It parts words by the newest of `RULES` that leaves every known word whole: a vocabulary keeps the rule that it was made by.
    """
    newest = _tokenizer(known, max(RULES))
    whole = all(word.isascii() or len(_split(newest.backend_tokenizer, word)) == 1 for word in known)
    return newest if whole else _tokenizer(known, min(RULES))


def _tokenizer(known: Sequence[str], rule: int):
    import transformers
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate((*SPECIAL, *known))}
    found = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    found.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    found.pre_tokenizer = pre_tokenizers.Split(Regex(RULES[rule]), "removed", invert=True)
    found.post_processor = processors.TemplateProcessing("$A", f"$A {BETWEEN}:1 $B:1", [(BETWEEN, ids[BETWEEN])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found,
        pad_token=PAD,
        unk_token=UNKNOWN,
        sep_token=BETWEEN,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
