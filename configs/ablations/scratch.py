"""What is pretraining worth, and until how many labels? Fine-tuning beside the same model from random parameters, and beside small models
that are made for that, at several sizes of the training set.

python -m research.ablation --config=configs/ablations/scratch.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/scratch.py:task=trec,path=FOLDER --only="train_examples=512 "

48 runs: 4 sizes x 4 beginnings, 3 seeds. Each has the recipe that suits it: what begins with nothing trains four times as long, at a rate
of its own, and is evaluated as often; a BiLSTM or a TextCNN has more dropout and no norms. Steps are the same at all sizes, and each seed
draws examples of its own, the same for all (see `few_shot.py`). With `--only`, the table compares at one size.
"""

from configs import ablations
from research.ablation import sweep as sweeps
from research.config.fields import FROM_NOTHING, SMALL

SIZES = (128, 512, 2048, 0)  # 0 is all
LONGER = 4
RATE = 2e-4  # of a transformer with random parameters: on TREC-6's dev split 84.6 after 1,024 steps; 5e-4 84.0, 1e-3 77.8 (MiniLM)
BASELINES = ("bilstm", "textcnn")


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget of fine-tuning), `demo`,
    `smoke`."""
    chosen = ablations.words(arg)
    small = {name.replace(".", "__"): value for model in BASELINES for name, value in SMALL[model].items()} if chosen["smoke"] else {}
    return ablations.base(chosen, {"total_steps": ablations.steps(chosen), "eval_percent": 25.0}, data__seed=None, **small)


def sweep(arg: str = ""):
    """At each size the pretrained model, the same from scratch, and the baselines."""
    chosen = ablations.words(arg)
    longer = {"total_steps": LONGER * ablations.steps(chosen)}
    scratch = {"weights.source": "scratch", "learning_rate": RATE, **longer}
    recipe = {name: FROM_NOTHING[name] for name in ("learning_rate", "dropout", "no_decay.norm")} | longer
    beginnings = [{"weights.source": ""}, scratch, *({"model": model, **recipe} for model in BASELINES)]
    sizes = sweeps.over("data.train_examples", ablations.few(chosen, SIZES))
    return sweeps.product(sizes, beginnings, ablations.seeds(chosen))
