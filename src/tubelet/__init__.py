"""Masked video autoencoders: pre-train, fine-tune, recognise, look inside."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tubelet import visualize as visualize
    from tubelet.build import run_recipe as run_recipe
    from tubelet.data.clips import DenseClip as DenseClip
    from tubelet.data.clips import SegmentClip as SegmentClip
    from tubelet.data.clips import Views as Views
    from tubelet.data.dataset import read_clip as read_clip
    from tubelet.data.manifest import Manifest as Manifest
    from tubelet.data.manifest import read_manifest as read_manifest
    from tubelet.data.video import VideoError as VideoError
    from tubelet.errors import UserError as UserError
    from tubelet.evaluation import evaluate as evaluate
    from tubelet.inspection import inspect as inspect
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
    from tubelet.prediction import predict as predict
    from tubelet.recipe import load_recipe as load_recipe
    from tubelet.zoo import load_model as load_model
    from tubelet.zoo import save_model as save_model

# Public name -> where it lives; imported on first use, so that the command's help is instant.
_PUBLIC = {
    "BlockMasking": "masking",
    "DenseClip": "data.clips",
    "DualMasking": "masking",
    "FrameMasking": "masking",
    "Manifest": "data.manifest",
    "MaskedAutoencoder": "models.autoencoder",
    "RandomMasking": "masking",
    "RunningCellMasking": "masking",
    "SegmentClip": "data.clips",
    "TokenMask": "masking",
    "TubeMasking": "masking",
    "UserError": "errors",
    "VideoClassifier": "models.classifier",
    "VideoError": "data.video",
    "Views": "data.clips",
    "evaluate": "evaluation",
    "inspect": "inspection",
    "load_model": "zoo",
    "load_recipe": "recipe",
    "predict": "prediction",
    "read_clip": "data.dataset",
    "read_manifest": "data.manifest",
    "resize_model": "models.resize",
    "run_recipe": "build",
    "save_model": "zoo",
}

__all__ = sorted([*_PUBLIC, "visualize"])


def __getattr__(name: str) -> Any:
    if name == "visualize":
        return import_module("tubelet.visualize")
    if name in _PUBLIC:
        return getattr(import_module(f"tubelet.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'tubelet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
