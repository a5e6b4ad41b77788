"""Transfer learning in NLP on JAX and Flax."""

import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers are used alone: that PyTorch is missing is no news
