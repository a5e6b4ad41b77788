"""What the methods of `research/adapt`, and models that are trained from nothing, may be told, with the defaults of their papers.

A method without options has no lines here.
"""

from ml_collections import ConfigDict


def add(c: ConfigDict) -> None:
    """Adds the options of every method and baseline to `c`."""
    _baselines(c)
    _features(c)
    c.top_layers = 2  # top_k: layers that train
    c.unfreeze_layers = 1  # gradual_unfreezing: stages that open in a phase
    c.llrd_decay = 0.95  # llrd: a stage's rate as a part of that of the stage above
    c.discriminative_factor = 2.6  # discriminative: how many times the rate of a stage is that of the stage below
    c.mixout_p = 0.9  # mixout: how likely a weight is its pretrained value in a step
    c.noisytune_lambda = 0.15  # noisytune: the width of the noise as a part of a matrix's standard deviation
    c.reinit_layers = 1  # reinit_top: layers from the top that begin with random values
    c.rdrop_alpha = 1.0  # rdrop: weight of the divergence between two passes
    c.sam_rho = 0.05  # sam: how far the parameters go before the gradient is taken
    c.ema_decay = 0.999  # ema: what a step leaves of the average
    c.swa_percent = 25.0  # swa: the last part of the training, over which parameters are averaged

    _deltas(c)

    c.l2sp = ConfigDict()
    c.l2sp.alpha = 0.1  # how strongly pretrained parameters are pulled to where they began
    c.l2sp.beta = 0.01  # how strongly new ones are pulled to 0

    c.child_tuning = ConfigDict()
    c.child_tuning.kind = "F"  # F: the elements that train are drawn in each step; D: those with most Fisher information
    c.child_tuning.p = 0.3  # the part of the encoder's elements that trains
    c.child_tuning.batches = 100  # D: training batches by which the information is estimated

    c.smart = ConfigDict()
    c.smart.weight = 1.0  # of the divergence
    c.smart.epsilon = 0.1  # how far the noise may go in each feature
    c.smart.sigma = 0.01  # standard deviation of the noise at first
    c.smart.step_size = 0.1  # how far an ascent goes in the steepest feature
    c.smart.steps = 1  # ascents

    c.freelb = ConfigDict()
    c.freelb.steps = 3  # perturbations whose gradients are averaged
    c.freelb.step_size = 0.1  # how far an ascent goes
    c.freelb.init = 1.0  # about the size of the noise at first
    c.freelb.norm = 0.6  # how far it may go; 0: anywhere


def _baselines(c: ConfigDict) -> None:
    """The shapes of models that are trained from nothing."""
    c.bilstm = ConfigDict()
    c.bilstm.embedding = 300  # features of a word's vector
    c.bilstm.size = 256  # of the state in each direction
    c.bilstm.layers = 1  # one over the other
    c.bilstm.min_count = 1  # how often a training word must stand there to be known

    c.textcnn = ConfigDict()
    c.textcnn.embedding = 300  # features of a word's vector
    c.textcnn.windows = "3,4,5"  # numbers of words that filters look at, apart by commas
    c.textcnn.filters = 100  # for each window
    c.textcnn.min_count = 1  # how often a training word must stand there to be known


def _features(c: ConfigDict) -> None:
    c.feature_layer = -2  # chosen_layer: the stage that is read; 0 is the embeddings, -1 the last layer

    c.feature_bilstm = ConfigDict()
    c.feature_bilstm.size = 256  # of the state in each direction
    c.feature_bilstm.layers = 2  # one over the other

    c.feature_concat = ConfigDict()
    c.feature_concat.embedding = 64  # features of a word's embedding
    c.feature_concat.size = 64  # of the state in each direction


def _deltas(c: ConfigDict) -> None:
    """The options of what is added to a frozen encoder."""
    c.lora = ConfigDict()
    c.lora.rank = 8  # of the matrix that is added
    c.lora.alpha = 16.0  # what is added is scaled by alpha / rank
    c.lora.targets = "attention/query,attention/value"  # modules with a kernel: patterns apart by commas
    c.lora.dropout = 0.0  # of what enters the low-rank path
    c.lora.rank_stabilised = False  # scale by alpha / sqrt(rank) instead

    c.dora = ConfigDict(c.lora.to_dict())  # the same options

    c.vera = ConfigDict()
    c.vera.rank = 256  # of the frozen matrices
    c.vera.d_initial = 0.1  # where the vector between them begins
    c.vera.targets = "attention/query,attention/value"  # as lora.targets

    c.ia3 = ConfigDict()
    c.ia3.outputs = "attention/key,attention/value"  # modules whose outputs are scaled
    c.ia3.inputs = "mlp/down"  # modules whose inputs are

    c.houlsby = ConfigDict({"size": 64})  # features of the bottleneck
    c.pfeiffer = ConfigDict({"reduction": 16})  # the bottleneck is a sixteenth of the layer's features
    c.parallel_adapter = ConfigDict({"size": 64, "scale": 4.0})  # features of the bottleneck; what its output is multiplied by
    c.compacter = ConfigDict({"size": 24, "n": 4})  # features of the bottleneck; n: terms of a kernel's sum, and parts its sides are cut in

    c.prefix = ConfigDict({"tokens": 20, "std": 0.02})  # keys and values for each layer; the deviation they are drawn with
    c.soft_prompt = ConfigDict({"tokens": 20})  # trained vectors before the text
