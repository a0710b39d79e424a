"""Files in, class names out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig


@pytest.fixture
def video(motion: Path) -> Path:
    return motion / "videos/test/00000.mp4"


def test_the_best_classes_come_first_with_the_views_of_the_card(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    result = tubelet.predict(model, video)
    views = read_views(str(video), SegmentClip(frames=4), Views(clips=2, crops=1), 32)
    with torch.no_grad():
        expected = model(views).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    names, probabilities = zip(*result.top(3), strict=True)
    assert names == tuple(model.card.classes[i] for i in np.argsort(-expected)[:3])
    assert list(probabilities) == sorted(probabilities, reverse=True)


def test_each_of_several_classes_has_a_probability_of_its_own(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = replace(model.card, multi_label=True)
    result = tubelet.predict(model, video)
    views = read_views(str(video), SegmentClip(frames=4), Views(clips=2, crops=1), 32)
    with torch.no_grad():
        expected = (1 / (1 + (-model(views)).exp())).mean(0).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    assert [name for name, _ in result.top(12)] == [model.card.classes[i] for i in np.argsort(-expected)]


def test_other_views_give_other_answers(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    one = tubelet.predict(model, video, views=tubelet.Views(clips=1, crops=1))
    assert not np.allclose(one.probabilities, tubelet.predict(model, video).probabilities)


def test_classes_without_names_are_numbers(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = ModelCard(clip=model.card.clip)
    assert {name for name, _ in tubelet.predict(model, video).top(12)} == {str(i) for i in range(12)}


def test_what_cannot_predict_says_so(trained: Path, video: Path) -> None:
    with pytest.raises(UserError, match="autoencoder names no classes"):
        tubelet.predict(load_model(trained / "pretrain"), video)
    model = load_model(trained / "finetune")
    model.card = ModelCard()
    with pytest.raises(UserError, match="does not say how its clips are sampled"):
        tubelet.predict(model, video)


@pytest.mark.parametrize(("classes", "kind"), [(12, "dense"), (174, "segment")])
def test_a_file_that_does_not_tell_its_clips_is_sampled_as_published(
    video: Path, tmp_path: Path, classes: int, kind: str
) -> None:
    encoder = EncoderConfig(
        frames=4, image_size=32, dim=32, depth=1, heads=2, mlp_dim=64, patch_size=8, final_norm=False
    )
    save_model(
        VideoClassifier(ClassifierConfig(encoder=encoder, classes=classes)), tmp_path / "x.pth", "videomae"
    )
    model = load_model(tmp_path / "x.pth", heads=2, image_size=32, frames=4)
    assert model.card.clip is not None
    assert model.card.clip.kind == kind
    assert len(tubelet.predict(model, video).top(3)) == 3
