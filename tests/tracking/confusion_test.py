"""Plot of a confusion matrix, for few and many classes and for labels in any script."""

import warnings

import numpy as np
import pytest
from PIL import Image

from research.tracking import confusion


@pytest.mark.parametrize("classes", [2, 6, 80])
def test_the_plot_grows_with_the_classes_and_shows_the_diagonal(tmp_path, classes):
    labels = ["负面", "$x^2$_a", *(f"class {i} {'of a long name ' * (i % 4)}" for i in range(classes - 2))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, counts in (("right", np.eye(classes) * 9), ("none", np.zeros((classes, classes)))):
            confusion.draw(tmp_path / f"{name}.png", counts, labels, "a run")
    right, none = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("right", "none"))
    assert right.shape == none.shape and 400 < right.shape[0] < 2000
    assert right.mean() < none.mean()
