"""The settings of published recipes that the other tests do not compare are those of the sources, too.

A recipe is rebuilt from what `test_published.py` compares and from the tables here; any other setting in its
file makes the two differ.
"""

from dataclasses import replace
from fnmatch import fnmatch

import pytest

from tests.recipe.published_runs import DECODERS, ENCODERS, RUNS, Run
from tests.recipe.test_published import FINETUNINGS, PRETRAININGS, PROBE, finetuning, pretraining
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig, LinearHeadConfig
from tubelet.models.target import PixelTarget
from tubelet.recipe.schema import (
    DataConfig,
    FinetuneDataConfig,
    FinetuneRecipe,
    PretrainRecipe,
    ReconstructionConfig,
)
from tubelet.train.checkpoint import SaveConfig
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import RuntimeConfig

HEADS = {"small": 6, "base": 12, "large": 16, "huge": 16, "giant": 16}
DECODER_HEADS = {"small": 3, "base": 6, "large": 8, "huge": 8, "narrow": 8, "giant": 8}

RECOMPUTED = {
    "videomae/finetune_k400_huge", "videomae/finetune_ucf101_base", "videomae/pretrain_k400_huge",
    "videomaev2/pretrain_hybrid_giant", "videomaev2/pretrain_hybrid_huge",
}  # fmt: skip
"""Those that recompute activations: the scripts with --use_checkpoint or --with_checkpoint."""

FIRST_MODELS = {
    "videomae_base_k400_hf": ("mar/*_base_*", "videomae/finetune_k400_base"),
    "videomae_large_k400_hf": ("mar/*_large_*", "videomae/finetune_k400_large"),
    "videomae_base_ssv2_hf": ("mar/finetune_ssv2_base_*", "videomae/finetune_ssv2_base"),
    "videomae_base_ssv2_800e_hf": ("videomae/finetune_ssv2_base_800", PROBE),
    "videomae_base_k400_800e_hf": ("videomae/finetune_k400_base_800",),
    "videomae_huge_k400": ("videomae/finetune_k400_huge",),
    "videomae_small_k400": ("videomae/finetune_k400_small",),
    "videomae_small_ssv2": ("videomae/finetune_ssv2_small",),
    "videomae_base_ucf101": ("videomae/finetune_ucf101_base",),
    "runs/videomae-pretrain_hmdb51_base": ("videomae/finetune_hmdb51_base",),
    "runs/videomae-pretrain_ssv2_large": ("videomae/finetune_ssv2_large",),
    "videomaev2_base_hybrid_hf": ("videomaev2/finetune_*_base",),
    "videomaev2_large_hybrid_hf": ("videomaev2/finetune_*_large",),
    "videomaev2_huge_hybrid_hf": ("videomaev2/finetune_*_huge",),
    "videomaev2_giant_hybrid": ("videomaev2/finetune_*_giant",),
    "videomaev2_giant_k710_finetuned": ("videomaev2/finetune_*_giant_k710",),
    "mae_st_base_k400_pyslowfast": ("mae_st/finetune_k400_base",),
    "mae_st_large_k400": ("mae_st/finetune_k400_large", "mae_st/finetune_k400_large_ma*"),
    "mae_st_large_k600": ("mae_st/finetune_k600_large",),
    "mae_st_large_k700": ("mae_st/finetune_k700_large",),
    "mae_st_huge_k400": ("mae_st/finetune_k400_huge",),
    "mae_st_huge_k600": ("mae_st/finetune_k600_huge",),
    "mae_st_huge_k700": ("mae_st/finetune_k700_huge",),
    "runs/mae_st-finetune_k600_large": ("mae_st/finetune_k400_large_k600",),
    "runs/mae_st-finetune_k600_huge": ("mae_st/finetune_k400_huge_k600",),
}
"""The models that fine-tunings start from, with patterns of the recipes: the last one that fits counts."""


def first_model(name: str) -> str:
    fitting = [init for init, patterns in FIRST_MODELS.items() if any(fnmatch(name, p) for p in patterns)]
    return fitting[-1]


def autoencoder(run: Run, name: str) -> AutoencoderConfig:
    """The model of a pre-training, as its source builds it."""
    assert run.decoder
    dim, depth, mlp_dim, side = ENCODERS[run.size]
    encoder = EncoderConfig(dim=dim, depth=depth, heads=HEADS[run.size], mlp_dim=mlp_dim, patch_size=side)
    dim, depth, mlp_dim = DECODERS[run.decoder]
    decoder = DecoderConfig(dim=dim, depth=depth, heads=DECODER_HEADS[run.decoder], mlp_dim=mlp_dim)
    if run.family != "mae_st":
        return AutoencoderConfig(encoder=encoder, decoder=decoder)
    own = name.endswith("_mae_st")  # the code that was published first
    return AutoencoderConfig(
        encoder=replace(
            encoder,
            positions="separable",
            class_token=True,
            key_bias=True,
            mean=(0.45,) * 3,
            std=(0.225,) * 3,
        ),
        decoder=replace(
            decoder,
            heads=16 if own else 8,
            positions="separable" if own else "joint",
            class_token="learned" if own else "encoder",
            embed_bias=True,
            key_bias=True,
        ),
        target=PixelTarget(
            normalize="patch", pixels="normalized", frames=8, spacing="linspace" if own else "stride"
        ),
    )


def compared(optim: OptimConfig) -> OptimConfig:
    """The settings that `test_published.py` compares; the others are their defaults."""
    return replace(optim, accumulate=1, ema=None, eps=1e-8)


def runtime(run: Run, name: str) -> RuntimeConfig:
    settings = RuntimeConfig(recompute=name in RECOMPUTED)
    return replace(settings, precision="fp32") if run.family == "mae_st" else settings


@pytest.mark.slow
def test_the_other_settings_of_pre_training_are_those_of_the_source() -> None:
    for name in PRETRAININGS:
        run, recipe = RUNS[name], pretraining(name)
        data = recipe.data
        assert recipe == PretrainRecipe(
            data=DataConfig(
                root=data.root,
                clip=data.clip,
                augment=data.augment,
                repeats=run.repeats,
                augmented_copies=run.copies,
                more_roots=data.more_roots if run.data == "hybrid" else (),
            ),
            model=autoencoder(run, name),
            masking=recipe.masking,
            optim=compared(recipe.optim),
            published=recipe.published,
            save=SaveConfig(every_epochs=recipe.save.every_epochs),
            runtime=runtime(run, name),
        ), name


@pytest.mark.slow
def test_the_other_settings_of_fine_tuning_are_those_of_the_source() -> None:
    for name in FINETUNINGS:
        run, recipe = RUNS[name], finetuning(name)
        data, is_mar = recipe.data, run.family == "mar"
        kept = isinstance(recipe.head, LinearHeadConfig) and recipe.head.keep_norm
        bridging = BridgingHeadConfig(dim=512, depth=2, heads=4, dropout=run.dropout)
        linear = LinearHeadConfig(dropout=run.dropout, keep_norm=kept)
        assert recipe == FinetuneRecipe(
            data=FinetuneDataConfig(
                root=data.root,
                clip=data.clip,
                augment=data.augment,
                repeats=run.repeats,
                augmented_copies=run.copies,
            ),
            init=first_model(name),
            head=bridging if is_mar else linear,
            masking=recipe.masking,
            masking_start_ratio=0.5 if name.endswith("_masked") else None,
            reconstruction=ReconstructionConfig(weight=0.1 if run.data == "ssv2" else 0.01)
            if is_mar
            else None,
            mixing=recipe.mixing,
            label_smoothing=recipe.label_smoothing,
            drop_path=run.drop_path,
            optim=compared(recipe.optim),
            views=recipe.views,
            keep_head=recipe.keep_head,
            init_classes=recipe.init_classes,
            freeze="encoder" if name == PROBE else None,
            published=recipe.published,
            runtime=runtime(run, name),
        ), name
