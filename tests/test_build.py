"""From a recipe to a trained model, on real videos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tubelet.build import train
from tubelet.errors import UserError
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.recipe import Recipe, load_recipe
from tubelet.zoo import load_model

Load = Callable[..., Recipe]


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_recipe_its_log_and_a_model(trained: Path) -> None:
    run = trained / "finetune"
    assert load_recipe(str(run / "recipe.yaml")) == load_recipe(str(trained / "finetune.yaml"))
    model = load_model(run)
    assert isinstance(model, VideoClassifier)
    assert model.card.classes[0] == "moving left"
    assert model.card.clip == {"kind": "segment", "frames": 4}
    assert dict(model.card.views) == {"clips": 2, "crops": 1}
    assert isinstance(load_model(run / "best"), VideoClassifier)
    assert {"val/top1", "val/top5"} <= logged(run)[-1].keys()


def test_fine_tuning_starts_from_the_pretrained_encoder_and_decoder(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("mar", "optim.base_lr=0", "optim.weight_decay=0", init=trained / "pretrain")
    train(recipe, tmp_path / "run")
    before, after = load_model(trained / "pretrain"), load_model(tmp_path / "run")
    assert after.decoder is not None
    assert before.decoder is not None
    for part in ("encoder", "decoder"):
        expected, found = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_training_changes_the_weights_and_lowers_the_loss(tiny_recipe: Load, tmp_path: Path) -> None:
    train(tiny_recipe("pretrain", "optim.epochs=12", "save.log_steps=3"), tmp_path / "run")
    losses = [line["loss"] for line in logged(tmp_path / "run")]
    assert losses[-1] < losses[0]


def test_a_finished_run_returns_at_once_and_changes_nothing(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained / "finetune", tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    metrics = train(tiny_recipe("finetune"), run)
    assert metrics["val/top1"] == logged(run)[-1]["val/top1"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_folder_of_another_recipe_is_refused_with_the_difference(
    tiny_recipe: Load, trained: Path
) -> None:
    with pytest.raises(
        UserError, match=r"holds the run of another recipe.*\n.*optim\.base_lr: 0\.01 -> 0\.5"
    ):
        train(tiny_recipe("finetune", "optim.base_lr=0.5"), trained / "finetune")


def test_where_it_computes_does_not_make_another_recipe(tiny_recipe: Load, trained: Path) -> None:
    train(tiny_recipe("finetune", "runtime.threads=1", "data.workers=1"), trained / "finetune")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.batch_size=100", "optim.batch_size=100 is more than the 24 videos"),
        ("optim.accumulate=3", "use a multiple of 3"),
        ("data.clip.frames=8", "data.clip.frames is 8, but the model takes 4"),
        ("data.root=/nowhere", "no data set at /nowhere"),
        ("data.train=trian", "has no trian.csv"),
        ("encoder=null", "give either init=MODEL"),
        ("init=/nowhere", "no model at /nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_folder_is_made(
    tiny_recipe: Load, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(tiny_recipe("finetune", override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_init_of_another_architecture_is_refused(tiny_recipe: Load, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another architecture.*\n.*decoder\.dim: 16 -> 32"):
        train(
            tiny_recipe("pretrain", "model.decoder.dim=32", f"init={trained / 'pretrain'}"), tmp_path / "run"
        )


def test_pretraining_goes_on_from_another_models_weights(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    start = trained / "pretrain"
    train(
        tiny_recipe("pretrain", f"init={start}", "optim.base_lr=0", "optim.weight_decay=0"), tmp_path / "run"
    )
    model = load_model(tmp_path / "run")
    assert isinstance(model, MaskedAutoencoder)
    expected = load_model(start).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_broken_video_is_replaced_and_reported(
    tiny_recipe: Load, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    broken = data / "videos/train/00003.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    train(tiny_recipe("pretrain", f"data.root={data}", "optim.epochs=1"), tmp_path / "run")
    failures = json.loads((tmp_path / "run" / "failures.json").read_text())
    assert list(failures) == ["videos/train/00003.mp4"]
    assert "1 videos could not be read" in capsys.readouterr().out


def test_too_many_broken_videos_stop_the_run(tiny_recipe: Load, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    for path in (data / "videos/train").iterdir():
        path.write_text("no video")
    with pytest.raises(UserError, match="videos cannot be read"):
        train(tiny_recipe("pretrain", f"data.root={data}"), tmp_path / "run")
