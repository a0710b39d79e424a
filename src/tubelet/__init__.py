"""Masked video autoencoders: pre-train, fine-tune, recognise, look inside."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tubelet.checkpoints.load import load_model as load_model
    from tubelet.checkpoints.save import save_model as save_model
    from tubelet.clips import DenseClip as DenseClip
    from tubelet.clips import SegmentClip as SegmentClip
    from tubelet.clips import Views as Views
    from tubelet.data.dataset import read_clip as read_clip
    from tubelet.data.manifest import Manifest as Manifest
    from tubelet.data.manifest import read_manifest as read_manifest
    from tubelet.errors import UserError as UserError
    from tubelet.masking import BlockMasking as BlockMasking
    from tubelet.masking import DualMasking as DualMasking
    from tubelet.masking import FrameMasking as FrameMasking
    from tubelet.masking import RandomMasking as RandomMasking
    from tubelet.masking import RunningCellMasking as RunningCellMasking
    from tubelet.masking import TokenMask as TokenMask
    from tubelet.masking import TubeMasking as TubeMasking
    from tubelet.models.autoencoder import MaskedAutoencoder as MaskedAutoencoder
    from tubelet.models.classifier import VideoClassifier as VideoClassifier
    from tubelet.models.resize import resize_model as resize_model
    from tubelet.recipe.loading import load_recipe as load_recipe
    from tubelet.run import visualize as visualize
    from tubelet.run.evaluation import evaluate as evaluate
    from tubelet.run.inspection import inspect_checkpoint as inspect_checkpoint
    from tubelet.run.prediction import predict as predict
    from tubelet.run.training import run_recipe as run_recipe
    from tubelet.video.reader import VideoError as VideoError

# Public name -> where it lives; imported on first use, so that the command's help is instant.
_PUBLIC = {
    "BlockMasking": "masking",
    "DenseClip": "clips",
    "DualMasking": "masking",
    "FrameMasking": "masking",
    "Manifest": "data.manifest",
    "MaskedAutoencoder": "models.autoencoder",
    "RandomMasking": "masking",
    "RunningCellMasking": "masking",
    "SegmentClip": "clips",
    "TokenMask": "masking",
    "TubeMasking": "masking",
    "UserError": "errors",
    "VideoClassifier": "models.classifier",
    "VideoError": "video.reader",
    "Views": "clips",
    "evaluate": "run.evaluation",
    "inspect_checkpoint": "run.inspection",
    "load_model": "checkpoints.load",
    "load_recipe": "recipe.loading",
    "predict": "run.prediction",
    "read_clip": "data.dataset",
    "read_manifest": "data.manifest",
    "resize_model": "models.resize",
    "run_recipe": "run.training",
    "save_model": "checkpoints.save",
    "visualize": "run",
}

__all__ = sorted([*_PUBLIC, "visualize"])


def __getattr__(name: str) -> Any:
    if name == "visualize":
        return import_module("tubelet.run.visualize")
    if name in _PUBLIC:
        return getattr(import_module(f"tubelet.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'tubelet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
