from pathlib import Path

import pytest

from tubelet.checkpoints.load import load_model
from tubelet.models.classifier import VideoClassifier


@pytest.fixture
def model(trained: Path) -> VideoClassifier:
    """A trained classifier with a masking and a decoder."""
    loaded = load_model(trained / "mar")
    assert isinstance(loaded, VideoClassifier)
    return loaded
