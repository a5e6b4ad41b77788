"""Options of the methods in `research/adapt` and of models trained from scratch, with the defaults of their papers.

A method without options has no lines here. `--list=fields` prints the comments.
"""

from ml_collections import ConfigDict


def add(c: ConfigDict) -> None:
    """Add the options of every method and baseline to `c`."""
    _baselines(c)
    _features(c)
    c.top_layers = 2  # top_k: number of trainable layers, from the top
    c.unfreeze_layers = 1  # gradual_unfreezing: number of stages that each phase unfreezes
    c.llrd_decay = 0.95  # llrd: learning rate of a stage divided by that of the stage above
    c.discriminative_factor = 2.6  # discriminative: learning rate of a stage divided by that of the stage below
    c.mixout_p = 0.9  # mixout: probability that a weight is replaced by its pretrained value in a step
    c.noisytune_lambda = 0.15  # noisytune: width of the uniform noise, relative to the standard deviation of the matrix
    c.reinit_layers = 1  # reinit_top: number of layers, from the top, that start from random values
    c.rdrop_alpha = 1.0  # rdrop: weight of the divergence between the two passes
    c.sam_rho = 0.05  # sam: norm of the perturbation of the parameters
    c.ema_decay = 0.999  # ema: decay of the moving average per step
    c.swa_percent = 25.0  # swa: last part of the training, in percent, over which the parameters are averaged

    _deltas(c)

    c.l2sp = ConfigDict()
    c.l2sp.alpha = 0.1  # weight of the L2 penalty on the distance from the pretrained parameters
    c.l2sp.beta = 0.01  # weight of the L2 penalty on new parameters

    c.child_tuning = ConfigDict()
    c.child_tuning.kind = "F"  # elements that get a gradient: F (drawn at random in each step) | D (those with the most Fisher information)
    c.child_tuning.p = 0.3  # fraction of the encoder's elements that get a gradient
    c.child_tuning.batches = 100  # number of training batches for estimating the Fisher information of kind D

    c.smart = ConfigDict()
    c.smart.weight = 1.0  # weight of the divergence in the loss
    c.smart.epsilon = 0.1  # maximum absolute value of the noise in each feature
    c.smart.sigma = 0.01  # standard deviation of the initial noise
    c.smart.step_size = 0.1  # length of an ascent step in the feature with the largest gradient
    c.smart.steps = 1  # number of ascent steps

    c.freelb = ConfigDict()
    c.freelb.steps = 3  # number of perturbations whose gradients are averaged
    c.freelb.step_size = 0.1  # length of an ascent step
    c.freelb.init = 1.0  # scale of the initial noise
    c.freelb.norm = 0.6  # maximum norm of the noise of an example; 0: no limit


def _baselines(c: ConfigDict) -> None:
    """Add the sizes of models trained from scratch."""
    c.bilstm = ConfigDict()
    c.bilstm.embedding = 300  # size of a word embedding
    c.bilstm.size = 256  # hidden size of each direction
    c.bilstm.layers = 1  # number of BiLSTM layers
    c.bilstm.min_count = 1  # minimum number of occurrences in the training texts that puts a word into the vocabulary

    c.textcnn = ConfigDict()
    c.textcnn.embedding = 300  # size of a word embedding
    c.textcnn.windows = "3,4,5"  # filter widths in words, separated by commas
    c.textcnn.filters = 100  # number of filters of each width
    c.textcnn.min_count = 1  # minimum number of occurrences in the training texts that puts a word into the vocabulary


def _features(c: ConfigDict) -> None:
    c.feature_layer = -2  # chosen_layer: stage whose states the head reads; 0: embeddings, -1: last layer

    c.feature_bilstm = ConfigDict()
    c.feature_bilstm.size = 256  # hidden size of each direction
    c.feature_bilstm.layers = 2  # number of BiLSTM layers

    c.feature_concat = ConfigDict()
    c.feature_concat.embedding = 64  # size of a word embedding
    c.feature_concat.size = 64  # hidden size of each direction


def _deltas(c: ConfigDict) -> None:
    """Add the options of methods that add parameters to a frozen encoder."""
    c.lora = ConfigDict()
    c.lora.rank = 8  # rank of the added matrix
    c.lora.alpha = 16.0  # numerator of the scale of the added matrix, alpha / rank
    c.lora.targets = "attention/query,attention/value"  # modules whose kernel is adapted: comma-separated patterns
    c.lora.dropout = 0.0  # dropout rate of the input of the low-rank path
    c.lora.rank_stabilised = False  # whether the scale is alpha / sqrt(rank) instead of alpha / rank

    c.dora = ConfigDict(c.lora.to_dict())  # same options as lora

    c.vera = ConfigDict()
    c.vera.rank = 256  # rank of the frozen random matrices
    c.vera.d_initial = 0.1  # initial value of the trained vector between the two frozen matrices
    c.vera.targets = "attention/query,attention/value"  # modules whose kernel is adapted: comma-separated patterns

    c.ia3 = ConfigDict()
    c.ia3.outputs = "attention/key,attention/value"  # modules whose outputs are scaled: comma-separated patterns
    c.ia3.inputs = "mlp/down"  # modules whose inputs are scaled: comma-separated patterns

    c.houlsby = ConfigDict({"size": 64})  # size of the bottleneck
    c.pfeiffer = ConfigDict({"reduction": 16})  # hidden size of the layer divided by the size of the bottleneck
    c.parallel_adapter = ConfigDict({"size": 64, "scale": 4.0})  # size: features of the bottleneck; scale: factor of the adapter's output
    c.compacter = ConfigDict({"size": 24, "n": 4})  # size: features of the bottleneck; n: number of Kronecker products that sum to a kernel

    c.prefix = ConfigDict({"tokens": 20, "std": 0.02})  # tokens: trained keys and values per layer; std: deviation of their initial values
    c.soft_prompt = ConfigDict({"tokens": 20})  # number of trained vectors inserted after the first token
