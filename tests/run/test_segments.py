"""Segments of one video are tested as different samples."""

from pathlib import Path

import numpy as np

from tubelet.checkpoints.load import load_model
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.run.evaluation import evaluate
from tubelet.run.predictor import predict


def test_a_test_keeps_the_segments_of_a_video_separate(trained: Path, motion: Path):
    model = load_model(trained / "finetune")
    whole = read_manifest(motion, "test")
    path = str(whole.locate(whole.samples[0]))
    spans = [(0.0, 0.2), (0.3, None), (None, None), (50.0, 60.0)]
    samples = tuple(Sample(path, label=k % 2, start=start, end=end) for k, (start, end) in enumerate(spans))
    result = evaluate(model, Manifest(motion, "test", samples, whole.classes), workers=0)
    assert result.names == [sample.name for sample in samples[:3]]
    assert list(result.broken) == [f"{path}#t=50,60"]
    for (start, end), probabilities in zip(spans, result.probabilities, strict=False):
        single = predict(model, path, start=start, end=end).probabilities
        np.testing.assert_allclose(single, probabilities, rtol=1e-4, atol=1e-6)
    assert not np.allclose(result.probabilities[0], result.probabilities[1], atol=1e-6)
