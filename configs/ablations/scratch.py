"""How much does pretraining help, and up to how many labels? Fine-tuning against the same model from random parameters, and against small
models made for training from scratch, at several training set sizes.

python -m research.ablation --config=configs/ablations/scratch.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/scratch.py:task=trec,path=FOLDER --only="train_examples=512 "

48 runs: 4 sizes x 4 initialisations, 3 seeds. Each model has a suitable recipe: models trained from scratch train four times as long, at
another learning rate, with the same number of evaluations; BiLSTM and TextCNN have more dropout and no norms. The number of steps is the
same at all sizes. Each seed draws different training examples, the same for all models (see `few_shot.py`). With `--only`, the table
compares runs of one size.
"""

from configs import ablations
from research.ablation import sweep as sweeps
from research.config.fields import FROM_NOTHING, SMALL

SIZES = (128, 512, 2048, 0)  # 0: the full training set
LONGER = 4
RATE = 2e-4  # for a randomly initialised transformer; accuracy on TREC-6 dev after 1,024 steps: 84.6; 5e-4: 84.0; 1e-3: 77.8 (MiniLM)
BASELINES = ("bilstm", "textcnn")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget for fine-tuning), `demo`,
    `smoke`.
    """
    chosen = ablations.words(arg)
    small = {name.replace(".", "__"): value for model in BASELINES for name, value in SMALL[model].items()} if chosen["smoke"] else {}
    return ablations.base(chosen, {"total_steps": ablations.steps(chosen), "eval_percent": 25.0}, data__seed=None, **small)


def sweep(arg: str = ""):
    """Return, for each size, the pretrained model, the same model from scratch, and the baselines."""
    chosen = ablations.words(arg)
    longer = {"total_steps": LONGER * ablations.steps(chosen)}
    scratch = {"weights.source": "scratch", "learning_rate": RATE, **longer}
    recipe = {name: FROM_NOTHING[name] for name in ("learning_rate", "dropout", "no_decay.norm")} | longer
    initialisations = [{"weights.source": ""}, scratch, *({"model": model, **recipe} for model in BASELINES)]
    sizes = sweeps.over("data.train_examples", ablations.few(chosen, SIZES))
    return sweeps.product(sizes, initialisations, ablations.seeds(chosen))
