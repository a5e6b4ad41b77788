"""Advice at a run's end: it follows from the run, and an ordinary run gets none."""

from research.experiment import hints

CONFIG = {"task": "custom", "learning_rate": 5e-5, "total_steps": None, "total_epochs": 3.0, "total_examples": None}


def rows(pairs: str) -> list[dict[str, str]]:
    """Return examples as dicts: `ab` is an example of class a that was predicted as b."""
    return [{"label": pair[0], "prediction": pair[1]} for pair in pairs.split()]


def hints_of(
    losses=(2, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6),
    dev=(0.6, 0.8, 0.75),
    selected_step=None,
    pairs="aa bb aa bb ab",
    config=CONFIG,
    metric="accuracy",
) -> list[str]:
    lines = [{"step": step, "train/loss": loss} for step, loss in enumerate(losses, 1)]
    lines += [{"step": 10 * i, f"dev/{metric}": score} for i, score in enumerate(dev, 1)]
    selected_step = selected_step or 10 * (1 + max(range(len(dev)), key=dev.__getitem__))
    selection = {"metric": metric, "titles": {"accuracy": "accuracy", "f1": "f1 of 'ham'"}}
    return hints.hints(config, selection, selected_step, lines, rows(pairs))


def test_an_ordinary_run_gets_no_advice():
    assert hints_of() == []


def test_a_loss_that_never_fell():
    (hint,) = hints_of(losses=[0.69, 0.70, 0.69, 0.68, 0.70, 0.69, 0.69, 0.70])
    assert hint.startswith("the training loss never fell (0.690 at first, 0.700 at the end): ")
    assert "--config.learning_rate=0.00015 or 1.7e-05" in hint
    assert hints_of(losses=[0.69, 0.70]) == [], "two steps say nothing"


def test_a_class_that_is_never_predicted_on_dev():
    assert hints_of(pairs="aa aa aa bb bb ca") == [
        "never predicted on dev: 'c' (1 of 6 dev examples); train longer, or give these classes more examples"
    ]
    assert hints_of(pairs="aa bb cc aa ac") == []


def test_one_class_for_all():
    assert hints_of(pairs="aa aa ba ba") == ["every dev example was predicted as 'a': the model has not learnt to tell the classes apart"]


def test_no_better_than_a_constant_answer():
    assert hints_of(pairs="aa ab ab bb") == ["dev accuracy 0.5000 is not above that of always answering 'a', 0.7500"]


def test_dev_that_still_rises_at_the_end():
    (hint,) = hints_of(dev=(0.6, 0.7, 0.8))
    assert hint.startswith(
        "dev accuracy was still improving at the end (0.7000, then 0.8000): train longer, --config.total_epochs=6 with another"
    )
    assert hints_of(dev=(0.6, 0.7, 0.8), metric="f1")[0].startswith("dev f1 of 'ham' was still improving")
    (hint,) = hints_of(dev=(0.6, 0.8), config={**CONFIG, "total_epochs": None, "total_steps": 500})
    assert "--config.total_steps=1000 " in hint
    assert hints_of(dev=(0.6, 0.8, 0.8)) == hints_of(dev=(0.8,)) == []


def test_dev_that_was_best_long_before_the_end():
    (hint,) = hints_of(dev=(0.8, 0.7, 0.75, 0.7))
    assert hint.startswith("dev accuracy was best at step 10 of 40 and not afterwards, while the training loss fell")
