"""The shipped sweeps: every arm's recipe fits, and each of them runs at toy size."""

from pathlib import Path

import pytest
import torch

from tubelet.checkpoints.save import save_model
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.sweep.plan import Changes, plan_sweep
from tubelet.sweep.running import run_sweep
from tubelet.sweep.schema import read_sweep, sweep_names, sweep_text
from tubelet.sweep.share import Share

SIZE = "dim: 16, depth: 2, heads: 2, mlp_dim: 32"
MAR = f"{{frames: 4, image_size: 56, patch_size: 4, {SIZE}}}"  # 14 x 14 tokens, as MAR's cells need
MAE_ST = (
    f"{{frames: 16, image_size: 32, patch_size: 8, {SIZE}, positions: separable, class_token: true, "
    "key_bias: true}"
)


@pytest.mark.slow
def test_every_arm_of_every_sweep_fits() -> None:
    for name in sweep_names():
        sweep = read_sweep(name)
        runs = plan_sweep(sweep, Path("out"))
        assert len({run.folder for run in runs}) == len(sweep.all_arms()) * len(sweep.seeds)
        recipes = [(run.recipe, run.pretraining and run.pretraining.recipe) for run in runs if not run.seed]
        assert all(recipe not in recipes[:k] for k, recipe in enumerate(recipes)), f"{name}: two equal arms"
        assert sweep.source or name == "science"
        assert sweep_text(name).startswith("#")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder with MAR's grid."""
    torch.manual_seed(0)
    encoder = EncoderConfig(frames=4, image_size=56, patch_size=4, dim=16, depth=2, heads=2, mlp_dim=32)
    decoder = DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=32)
    path = tmp_path_factory.mktemp("init") / "autoencoder"
    save_model(MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=decoder)), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", sweep_names())
def test_sweeps_run_at_toy_size(name: str, autoencoder: Path, motion: Path, tmp_path: Path) -> None:
    """Every arm trains for two steps on real videos, and is tested."""
    text = sweep_text(name).replace("encoder: {size: base}", f"encoder: {MAR}")
    for init in ("videomae_base_ssv2_hf", "videomae_base_k400_hf"):
        text = text.replace(f"init: {init}", f"init: {autoencoder}")
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    sweep = read_sweep(str(tmp_path / "sweep.yaml"))
    short = (f"data.root={motion}", "data.workers=0", "optim.epochs=1", "optim.batch_size=12",
             "optim.accumulate=1", "optim.warmup_epochs=0")  # fmt: skip
    finetune, pretrain = [*short, "data.val=null"], list(short)
    if name.startswith("mar/"):
        finetune += [f"init={autoencoder}", "data.clip={kind: segment, frames: 4}"]
    elif name.startswith("mae_st/"):
        pretrain += [f"model.encoder={MAE_ST}", "data.repeats=1"]
        if not sweep.pretrain:
            finetune += ["init=null", f"encoder={MAE_ST}", "head={kind: linear}"]
    words = [*finetune, *(f"pretrain.{word}" for word in pretrain if sweep.pretrain), "test.views.clips=1"]
    words += ["test.views.crops=1", "test.protocol=null"]
    runs = [run for run in plan_sweep(sweep, tmp_path / "out", Changes.parse(words)) if not run.seed]
    run_sweep(name, sweep, runs, tmp_path / "out", Share())
    table = (tmp_path / "out" / "results.md").read_text()
    assert table.count("| 1 of ") == sum(len(run.tests) for run in runs)
