"""Word vocabulary and word tokenizer of models trained from scratch."""

import collections
from collections.abc import Iterable, Sequence

SPECIAL = PAD, UNKNOWN, SEPARATOR = "[PAD]", "[UNK]", "[SEP]"
# Scripts without blanks between words: each character, with its combining marks, is a word.
CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\x{30fc}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# Other scripts: words, contractions split as in treebanks and word vectors ("do" "n't", "it" "'s"), and each other character.
WORD = r"LETTER+?(?=n't(?!LETTER))|n't(?!LETTER)|'LETTER+|LETTER+|[^\w\s]"
RULES = {
    1: WORD.replace("LETTER", r"\w"),  # for runs before 2026-11-27, in whose vocabularies a sequence of `CHARACTERS` is one word
    2: rf"[{CHARACTERS}]\p{{M}}*|" + WORD.replace("LETTER", rf"[\w&&[^{CHARACTERS}]]"),
}


def words(texts: Iterable[str], min_count: int = 1) -> tuple[str, ...]:
    """Return the lower-case words that occur in `texts` at least `min_count` times, by falling frequency, then alphabetically."""
    splitter, counts = tokenizer(()).backend_tokenizer, collections.Counter()
    for text in texts:
        counts.update(_split(splitter, text))
    return tuple(sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)))


def _split(splitter, text: str) -> list[str]:
    return [word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(text))]


def tokenizer(known: Sequence[str]):
    """Return a fast tokenizer of `transformers` in which `known[i]` has the id i + 3. Ids 0 to 2 are [PAD], [UNK] and [SEP].

    [SEP] stands between the texts of a pair. Words are split by the newest of `RULES` that splits no known word, so a vocabulary is used
    with the rule that made it.
    """
    newest = _tokenizer(known, max(RULES))
    intact = all(word.isascii() or len(_split(newest.backend_tokenizer, word)) == 1 for word in known)
    return newest if intact else _tokenizer(known, min(RULES))


def _tokenizer(known: Sequence[str], rule: int):
    import transformers
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate((*SPECIAL, *known))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(RULES[rule]), "removed", invert=True)
    backend.post_processor = processors.TemplateProcessing("$A", f"$A {SEPARATOR}:1 $B:1", [(SEPARATOR, ids[SEPARATOR])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        sep_token=SEPARATOR,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
