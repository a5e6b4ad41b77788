"""Fine-tuning against frozen features for named entity recognition: Devlin et al. 2019, table 7. No cell can be run yet."""

from research.ablation.report.published import PublishedCell, Table

TITLE = 'Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019.'
FINE_TUNED = {"BERT-large": (96.6, 92.8), "BERT-base": (96.4, 92.4)}  # dev, test
FEATURES = {  # frozen features of BERT-base, read by two BiLSTM layers of 768 units; dev
    "Embeddings": 91.0,
    "Second-to-Last Hidden": 95.6,
    "Last Hidden": 94.9,
    "Weighted Sum Last Four Hidden": 95.9,
    "Concat Last Four Hidden": 96.1,
    "Weighted Sum All 12 Layers": 95.5,
}
RUNS = 5  # "averaged over 5 random restarts"


def published() -> Table:
    """Return the table: F1 over entities of CoNLL-2003."""
    cells = [
        PublishedCell(f"{model}, fine-tuned, {split}", value, f"Table 7, Fine-tuning approach, {model}, {split}", n=RUNS, split=split)
        for model, values in FINE_TUNED.items()
        for split, value in zip(("dev", "test"), values, strict=True)
    ]
    cells += [
        PublishedCell(f"{row}, dev", value, f"Table 7, Feature-based approach, {row}, dev", n=RUNS, split="dev")
        for row, value in FEATURES.items()
    ]
    return Table(
        "Devlin et al. 2019",
        TITLE,
        "table 7, feature-based NER",
        "f1",
        0.5,
        tuple(cells),
        blocked_by=("token classification (CoNLL-2003)",),
    )
