"""Video files in, class names out; on which device and in which precision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.run.inference import on_device


@pytest.fixture
def video(motion: Path) -> Path:
    return motion / "videos/test/00000.mp4"


def test_the_best_classes_come_first_with_the_views_of_the_card(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    result = tubelet.predict(model, video, precision="fp32")
    views = read_views(str(video), SegmentClip(frames=4), Views(clips=2, crops=1), 32)
    with torch.no_grad():
        expected = model(views).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    names, probabilities = zip(*result.top(3), strict=True)
    assert names == tuple(model.card.classes[i] for i in np.argsort(-expected)[:3])
    assert list(probabilities) == sorted(probabilities, reverse=True)


def test_a_multi_label_model_has_a_probability_for_each_class(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = replace(model.card, multi_label=True)
    result = tubelet.predict(model, video, precision="fp32")
    views = read_views(str(video), SegmentClip(frames=4), Views(clips=2, crops=1), 32)
    with torch.no_grad():
        expected = (1 / (1 + (-model(views)).exp())).mean(0).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    assert [name for name, _ in result.top(12)] == [model.card.classes[i] for i in np.argsort(-expected)]


def test_other_views_give_other_probabilities(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    one = tubelet.predict(model, video, views=tubelet.Views(clips=1, crops=1))
    assert not np.allclose(one.probabilities, tubelet.predict(model, video).probabilities)


def test_probabilities_that_are_not_finite_are_an_error_that_names_the_video(
    trained: Path, video: Path
) -> None:
    for value in (float("nan"), float("inf")):
        model = load_model(trained / "finetune")
        with torch.no_grad():
            next(model.parameters()).fill_(value)
        with pytest.raises(UserError, match=rf"{video}: .* not finite.*precision=fp32") as error:
            tubelet.predict(model, video, precision="fp32")
        assert not isinstance(error.value, tubelet.VideoError)


def test_classes_without_names_are_numbers(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = ModelCard(clip=model.card.clip)
    assert {name for name, _ in tubelet.predict(model, video).top(12)} == {str(i) for i in range(12)}


def test_a_model_that_cannot_predict_is_refused(trained: Path, video: Path) -> None:
    with pytest.raises(UserError, match="autoencoder"):
        tubelet.predict(load_model(trained / "pretrain"), video)
    model = load_model(trained / "finetune")
    model.card = ModelCard()
    with pytest.raises(UserError, match="does not say how its clips are sampled"):
        tubelet.predict(model, video)


def test_a_model_may_be_given_by_its_path(trained: Path, video: Path) -> None:
    expected = tubelet.predict(load_model(trained / "finetune"), video)
    result = tubelet.predict(str(trained / "finetune"), str(video), device="cpu")
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)


def dtype_used(model: Model, video: Path, **options: str) -> torch.dtype:
    seen: list[torch.dtype] = []
    hook = model.encoder.embed.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    tubelet.predict(model, video, **options)  # type: ignore[call-overload]
    hook.remove()
    return seen[0]


def test_the_precision_is_what_is_given_else_the_recipes_else_float32(
    trained: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(trained / "finetune")
    card = replace(model.card, provenance={})
    for has_bf16 in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=has_bf16: {"avx512_bf16": found})
        fast = torch.bfloat16 if has_bf16 else torch.float32
        for recipe, expected in (
            ({"runtime": {"precision": "bf16"}}, fast),
            ({"runtime": {"precision": "auto"}}, fast),
            ({"runtime": {"precision": "fp32"}}, torch.float32),
            ({"runtime": None}, torch.float32),
            (None, torch.float32),
        ):
            model.card = replace(card, provenance={"recipe": recipe} if recipe else {})
            assert dtype_used(model, video) is expected, (recipe, has_bf16)
            assert dtype_used(model, video, precision="auto") is expected, (recipe, has_bf16)
            assert dtype_used(model, video, precision="bf16") is torch.bfloat16
            assert dtype_used(model, video, precision="fp32") is torch.float32
    model.card = replace(card, provenance={"recipe": {"runtime": {"precision": "fp16"}}})
    assert dtype_used(model, video) is torch.float32  # only GPUs are fast in it
    assert dtype_used(model, video, precision="fp16") is torch.float16
    with pytest.raises(UserError, match="precision"):
        tubelet.predict(model, video, precision="fp8")


def test_the_best_device_is_found_and_a_model_given_as_an_object_stays(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[torch.device] = []

    def move(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        moved.append(device)
        return model

    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    model = load_model(trained / "finetune")
    for gpus, mps, best in ((2, True, "cuda:0"), (0, True, "mps"), (0, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=gpus: found > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda found=gpus: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        for source, device, expected in (
            (model, None, "cpu"),
            (model, "cpu", "cpu"),
            (model, "auto", best),
            (trained / "finetune", None, best),
            (trained / "finetune", "cpu", "cpu"),
        ):
            _, runtime = on_device(source, device, "fp32")
            assert runtime.device == moved.pop() == torch.device(expected), (source, device, best)
        if gpus:
            assert on_device(model, "cuda:1", "fp32")[1].device == torch.device("cuda:1")
        for missing in ("cuda:7", "cuda:x", "tpu", *(["cuda"] if not gpus else [])):
            with pytest.raises(UserError, match=f"device {missing} is not available"):
                on_device(model, missing, "fp32")


def test_a_model_in_training_mode_predicts_in_evaluation_mode(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune").train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    expected = tubelet.predict(load_model(trained / "finetune"), video)
    np.testing.assert_array_equal(tubelet.predict(model, video).probabilities, expected.probabilities)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(("classes", "kind"), [(12, "dense"), (174, "segment")])
def test_a_file_without_clip_sampling_is_sampled_as_published(
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


def test_files_clips_and_lists_of_them_are_predicted(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    clip = tubelet.read_clip(video, SegmentClip(4), size=32)
    single = tubelet.predict(model, clip)
    np.testing.assert_array_equal(
        single.probabilities, tubelet.predict(model, video, views=Views()).probabilities
    )
    both = tubelet.predict(model, [video, clip])
    assert isinstance(both, list)
    np.testing.assert_allclose(both[0].probabilities, tubelet.predict(model, video).probabilities, atol=1e-6)
    np.testing.assert_array_equal(both[1].probabilities, single.probabilities)
    assert tubelet.predict(model, []) == []


def test_a_clip_that_does_not_fit_is_one_sentence(trained: Path, video: Path) -> None:
    model = load_model(trained / "finetune")
    clip = tubelet.read_clip(video, SegmentClip(4), size=32)
    for wrong in (clip.float(), clip[:2], clip[None]):
        with pytest.raises(UserError, match=r"uint8 .*\(4, 3, 32, 32\)"):
            tubelet.predict(model, wrong)
    with pytest.raises(UserError, match="one view"):
        tubelet.predict(model, clip, views=Views(clips=2))


def test_a_prediction_prints_its_best_classes(trained: Path, video: Path) -> None:
    found = tubelet.predict(trained / "finetune", video)
    (name, probability), *_ = found.top(1)
    assert repr(found).startswith(f"Prediction({name} {probability:.1%}, ")
    assert "array" not in repr(found)
    assert f"<td>{name}</td>" in found._repr_html_()
