"""Words of a text, for models that have no tokenizer of their own: which there are, and a tokenizer that knows them."""

import collections
from collections.abc import Iterable, Sequence

SPECIAL = PAD, UNKNOWN, BETWEEN = "[PAD]", "[UNK]", "[SEP]"
# Words, apart from what is joined to them as treebanks and word vectors have it ("do" "n't", "it" "'s"), and each other character.
WORD = r"\w+?(?=n't(?!\w))|n't(?!\w)|'\w+|\w+|[^\w\s]"


def words(texts: Iterable[str], least: int = 1) -> tuple[str, ...]:
    """The words that stand in `texts` at least `least` times, lower case, the most frequent first and equals by alphabet."""
    splitter, counts = tokenizer(()).backend_tokenizer, collections.Counter()
    for text in texts:
        pieces = splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(text))
        counts.update(word for word, _ in pieces)
    return tuple(sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word)))


def tokenizer(known: Sequence[str]):
    """A fast tokenizer of `transformers` in which `known[i]` has the id i + 3, after [PAD], [UNK] and [SEP], which parts pairs."""
    import transformers
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate((*SPECIAL, *known))}
    found = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    found.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    found.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    found.post_processor = processors.TemplateProcessing("$A", f"$A {BETWEEN}:1 $B:1", [(BETWEEN, ids[BETWEEN])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found,
        pad_token=PAD,
        unk_token=UNKNOWN,
        sep_token=BETWEEN,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
