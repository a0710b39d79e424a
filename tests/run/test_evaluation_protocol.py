"""Tests of a classifier by a published protocol, and by single parts of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from tests.videos import moving_frames, write_video
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.clips import (
    FixedDurationClip,
    GeometryName,
    HuggingFaceClip,
    MARSegmentClip,
    MMAction2Clip,
    ScoresName,
    SegmentClip,
    VideoMAEClip,
    VideoMAESegmentClip,
    Views,
)
from tubelet.data.dataset import read_views
from tubelet.data.manifest import Manifest, Sample
from tubelet.errors import UserError
from tubelet.models.classifier import VideoClassifier
from tubelet.recipe.loading import evaluate_recipe
from tubelet.run.prediction import precision_of_test


@pytest.fixture
def wide(tmp_path: Path, model: VideoClassifier) -> Manifest:
    """One video whose frames each geometry scales or cuts differently to a side of 32."""
    write_video(tmp_path / "wide.mkv", moving_frames(40, 41, 60), codec="ffv1", pixels="bgr0")
    return Manifest(tmp_path, "test", (Sample("wide.mkv", label=0),), model.card.classes)


def logits_of(model: VideoClassifier, wide: Manifest, clip: tubelet.AnyClip, views: Views) -> torch.Tensor:
    video = read_views(wide.root / "wide.mkv", clip, views, 32)
    with torch.no_grad():
        return torch.stack([model(view[None])[0] for view in video])


def probabilities_of(model: VideoClassifier, wide: Manifest, **options: object) -> np.ndarray:
    return tubelet.evaluate(model, wide, workers=0, precision="fp32", **options).probabilities[0]  # type: ignore[arg-type]


# Frames and views of each source. All apply a softmax to the scores of every view, and then take the mean of
# the views (VideoMAE, MMAction2) or their sum, which has the same order (PySlowFast: MAE-ST, MAR).
PUBLISHED: dict[str, tuple[tubelet.AnyClip, Views]] = {
    "videomae_k400": (VideoMAEClip(frames=4), Views(clips=5, crops=3, geometry="videomae")),
    "videomae_ssv2": (VideoMAESegmentClip(frames=4), Views(clips=2, crops=3, geometry="videomae")),
    "videomaev2_k400": (VideoMAEClip(frames=4), Views(clips=5, crops=3, geometry="videomae")),
    "videomaev2_ssv2": (
        VideoMAESegmentClip(frames=4, pad="front"),
        Views(clips=2, crops=3, geometry="videomae"),
    ),
    "mae_st_k400": (FixedDurationClip(frames=4, middle="floor"), Views(clips=7, crops=3, geometry="mae_st")),
    "mar_k400": (FixedDurationClip(frames=4), Views(clips=5, crops=3, geometry="mar")),
    "mar_ssv2": (MARSegmentClip(frames=4), Views(clips=2, crops=3, geometry="mar")),
    "mmaction2_k400": (MMAction2Clip(frames=4), Views(clips=5, crops=3, geometry="mmaction2")),
    "huggingface": (HuggingFaceClip(frames=4), Views(geometry="huggingface")),
}


def mean_softmax(logits: torch.Tensor) -> np.ndarray:
    """The mean over the views (V, K), in float64."""
    scores = np.exp(logits.double().numpy())
    return (scores / scores.sum(1, keepdims=True)).mean(0)


@pytest.mark.slow
def test_a_protocol_sets_clips_crops_geometry_and_averaging(model: VideoClassifier, wide: Manifest):
    """With the model's number of frames, 4, and a head that is sure of its answers."""
    with torch.no_grad():
        model.get_parameter("head.classify.weight").mul_(20)
    assert PUBLISHED.keys() == tubelet.PROTOCOLS.keys()
    for name, (clip, views) in PUBLISHED.items():
        logits = logits_of(model, wide, clip, views)
        found = probabilities_of(model, wide, protocol=name)
        np.testing.assert_allclose(found, mean_softmax(logits), atol=1e-5, err_msg=name)
        if views.count > 1:  # the mean of the scores themselves is another one
            assert np.abs(found - logits.mean(0).softmax(0).numpy()).max() > 1e-3, name
        best = tubelet.predict(model, wide.root / "wide.mkv", protocol=name, precision="fp32")
        np.testing.assert_allclose(best.probabilities, found, atol=1e-5, err_msg=name)


def test_geometries_give_other_probabilities(model: VideoClassifier, wide: Manifest):
    names: tuple[GeometryName, ...] = ("default", "videomae", "mmaction2")
    found = [probabilities_of(model, wide, views=Views(crops=3, geometry=name)) for name in names]
    assert not np.allclose(found[0], found[1], atol=1e-4)
    assert not np.allclose(found[1], found[2], atol=1e-6)


def test_clip_and_views_change_parts_of_a_protocol(model: VideoClassifier, wide: Manifest):
    clip, views = SegmentClip(frames=4), Views(clips=3, crops=1, geometry="mae_st")
    expected = logits_of(model, wide, clip, views).softmax(1).mean(0).numpy()
    found = probabilities_of(model, wide, protocol="mae_st_k400", clip=clip, views=Views(clips=3))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_is_tested_in_its_cards_geometry(model: VideoClassifier, wide: Manifest, tmp_path: Path):
    model.card = replace(model.card, views=Views(clips=2, crops=3, geometry="mmaction2"))
    save_model(model, tmp_path / "saved", layout="tubelet")
    saved = load_model(tmp_path / "saved")
    assert isinstance(saved, VideoClassifier)
    assert saved.card.views == model.card.views
    assert model.card.clip is not None
    views = Views(clips=1, crops=3, geometry="mmaction2")
    expected = logits_of(model, wide, model.card.clip, views).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(probabilities_of(saved, wide, views=Views(crops=3)), expected, atol=1e-6)


def test_scores_are_combined_as_asked(model: VideoClassifier, wide: Manifest):
    clip, views = SegmentClip(frames=4), Views(clips=3, crops=2)
    logits = logits_of(model, wide, clip, views)
    combined: tuple[tuple[ScoresName | None, torch.Tensor], ...] = (
        (None, logits.softmax(1).mean(0)),
        ("mean_probability", logits.softmax(1).mean(0)),
        ("mean_logit", logits.mean(0).softmax(0)),
        ("max_probability", logits.softmax(1).max(0).values),
    )
    for scores, expected in combined:
        found = probabilities_of(model, wide, clip=clip, views=replace(views, scores=scores))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6, err_msg=str(scores))


def test_a_multi_label_test_takes_the_highest_probability_of_a_class(model: VideoClassifier, wide: Manifest):
    """As PySlowFast does on Charades."""
    model.card = replace(model.card, multi_label=True)
    clip, views = SegmentClip(frames=4), Views(clips=3, scores="max_probability")
    expected = logits_of(model, wide, clip, views).sigmoid().max(0).values
    np.testing.assert_allclose(
        probabilities_of(model, wide, clip=clip, views=views), expected.numpy(), atol=1e-6
    )


def test_a_protocols_precision_holds_unless_one_is_given():
    for given, protocol, expected in (
        (None, "mar_k400", "fp32"), ("auto", "mae_st_k400", "fp32"), ("bf16", "mar_ssv2", "bf16"),
        (None, "videomae_k400", "auto"), ("bf16", None, "bf16"), (None, None, None),
    ):  # fmt: skip
        assert precision_of_test(given, protocol) == expected, (given, protocol)


def test_a_protocol_that_does_not_exist_is_refused_with_the_nearest(model: VideoClassifier, wide: Manifest):
    with pytest.raises(UserError, match="'mar_ssv3'; did you mean 'mar_ssv2'"):
        probabilities_of(model, wide, protocol="mar_ssv3")
    with pytest.raises(UserError, match="'mar_ssv3'; did you mean 'mar_ssv2'"):
        evaluate_recipe("data.root=x", "protocol=mar_ssv3")


def test_settings_change_single_parts_of_views():
    changed = evaluate_recipe("data.root=x", "protocol=mae_st_k400", "views.clips=10").views
    assert changed.over(tubelet.PROTOCOLS["mae_st_k400"].views) == Views(
        clips=10, crops=3, geometry="mae_st", scores="mean_probability"
    )
    assert evaluate_recipe("data.root=x").views.over(Views(clips=2)) == Views(clips=2)
    with pytest.raises(UserError, match=r"views: crops must be between 1 and 1,000, found 0"):
        evaluate_recipe("data.root=x", "views.crops=0")


def test_the_command_tests_by_a_protocol(tubelet, trained: Path, motion: Path, tmp_path: Path):
    def run(*settings: str) -> np.ndarray:
        out = tmp_path / "out.npz"
        code, _, err = tubelet(
            "evaluate", trained / "mar", f"data.root={motion}", "data.workers=0", "--dump", out, *settings
        )
        assert code == 0, err
        return np.load(out)["probabilities"]

    five = run("protocol=mar_k400", "views.crops=1")
    assert not np.allclose(five, run("protocol=mar_k400", "views.crops=1", "views.clips=1"))
    code, _, err = tubelet("evaluate", trained / "mar", f"data.root={motion}", "protocol=mar_400")
    assert code == 2
    assert "did you mean 'mar_k400'" in err
