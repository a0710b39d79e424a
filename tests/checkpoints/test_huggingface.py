"""Side by side with Hugging Face's VideoMAE, made from settings with random weights, offline."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.data.dataset import Batch
from tubelet.errors import UserError
from tubelet.masking import TokenMask, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.target import PixelTarget
from tubelet.tasks.classify import ClassifyTask

if TYPE_CHECKING:  # large: imported by the tests that use it
    from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification

pytestmark = pytest.mark.slow  # transformers takes seconds to import

TOLERANCE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}

# Grids of tokens: 2 x 3 x 3, 3 x 4 x 4, 2 x 3 x 3, 6 x 2 x 2 and 4 x 2 x 2.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"num_frames": 4, "image_size": 12, "patch_size": 4},
    "odd": {
        "num_frames": 6, "image_size": 20, "patch_size": 5, "hidden_size": 30, "num_attention_heads": 5,
        "num_hidden_layers": 3, "intermediate_size": 47, "decoder_hidden_size": 22,
    },
    "tubelets of four": {
        "num_frames": 8, "image_size": 18, "patch_size": 6, "tubelet_size": 4, "decoder_num_hidden_layers": 2,
        "layer_norm_eps": 1e-6,
    },
    "long": {"num_frames": 12, "image_size": 16, "patch_size": 8, "num_attention_heads": 1},
    "long tubelets of four": {"num_frames": 16, "image_size": 32, "patch_size": 16, "tubelet_size": 4},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Switch off transformers' progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def settings(name: str, **more: Any) -> Any:
    """A small VideoMAEConfig."""
    from transformers import VideoMAEConfig

    small = {
        "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40,
        "decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 33,
    }  # fmt: skip
    return VideoMAEConfig(**small | SIZES[name] | more)


def randomize(module: nn.Module) -> nn.Module:
    """Make every weight matter: no zeros in biases, no ones in norms."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim > 1 and parameter.shape[0] > 1:
            scale, shift = parameter[0].numel() ** -0.5, 0.0
        else:
            scale, shift = 0.3, float(parameter.detach().mean() == 1)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + shift)
    return module.eval()


def make_autoencoder(config: Any) -> "VideoMAEForPreTraining":
    from transformers import VideoMAEForPreTraining

    model = randomize(VideoMAEForPreTraining(config))
    assert isinstance(model, VideoMAEForPreTraining)
    return model


def make_classifier(config: Any) -> "VideoMAEForVideoClassification":
    from transformers import VideoMAEForVideoClassification

    model = randomize(VideoMAEForVideoClassification(config))
    assert isinstance(model, VideoMAEForVideoClassification)
    return model


def some_video(config: Any, batch: int = 2) -> Tensor:
    shape = (batch, config.num_frames, 3, config.image_size, config.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def pixel_values(video: Tensor, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> Tensor:
    """What its processor makes of a clip of the right size."""
    shape = (1, 1, 3, 1, 1)
    return (video / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def some_mask(config: Any, ratio: float, batch: int = 2) -> Tensor:
    """True where masked, equally often in every row; any tokens, not only tubes."""
    side = config.image_size // config.patch_size
    tokens = config.num_frames // config.tubelet_size * side**2
    noise = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(9))
    return noise.argsort(1) < int(ratio * tokens)


def load_autoencoder(folder: Path) -> MaskedAutoencoder:
    model = load_model(folder)
    assert isinstance(model, MaskedAutoencoder)
    return model


def load_classifier(folder: Path) -> VideoClassifier:
    model = load_model(folder)
    assert isinstance(model, VideoClassifier)
    return model


def assert_predict_alike(
    theirs: "VideoMAEForPreTraining", ours: MaskedAutoencoder, video: Tensor, masked: Tensor
) -> None:
    with torch.no_grad():
        expected = theirs(pixel_values(video), bool_masked_pos=masked)
        found = ours(video, TokenMask.from_masked(masked))
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(found.predicted, expected.logits, **TOLERANCE)
    torch.testing.assert_close(found.loss, expected.loss, **TOLERANCE)


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("name", SIZES)
def test_their_autoencoder_is_ours(name: str, ratio: float, tmp_path: Path):
    config = settings(name, use_mean_pooling=False)
    theirs = make_autoencoder(config)
    theirs.save_pretrained(tmp_path)
    assert_predict_alike(theirs, load_autoencoder(tmp_path), some_video(config), some_mask(config, ratio))


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_their_loss_on_raw_pixels_is_ours(name: str, tmp_path: Path):
    config = settings(name, use_mean_pooling=False, norm_pix_loss=False)
    theirs = make_autoencoder(config)
    theirs.save_pretrained(tmp_path)
    ours = load_autoencoder(tmp_path)
    assert ours.config.target == PixelTarget(normalize=None)
    assert_predict_alike(theirs, ours, some_video(config), some_mask(config, 0.75))


def test_their_autoencoder_without_a_last_norm_is_ours(tmp_path: Path):
    """Their default, mean pooling, removes the encoder's last norm in pre-training, too."""
    config = settings("tiny")
    theirs = make_autoencoder(config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_autoencoder(tmp_path / "theirs")
    assert not ours.config.encoder.final_norm
    assert_predict_alike(theirs, ours, some_video(config), some_mask(config, 0.5))
    save_model(ours, tmp_path / "ours", "huggingface")
    assert load_autoencoder(tmp_path / "ours").config == ours.config
    assert_predict_alike(back(ours, tmp_path), ours, some_video(config), some_mask(config, 0.5))


@pytest.mark.parametrize("pooling", [True, False], ids=["mean", "first token"])
@pytest.mark.parametrize("name", SIZES)
def test_their_classifier_is_ours(name: str, pooling: bool, tmp_path: Path):
    config = settings(name, use_mean_pooling=pooling, num_labels=7)
    theirs, video = make_classifier(config), some_video(config)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(pixel_values(video)).logits
        torch.testing.assert_close(load_classifier(tmp_path)(video), expected, **TOLERANCE)


def test_their_class_names_and_pixel_statistics_are_ours(tmp_path: Path):
    names = {0: "archery", 1: "bowling", 2: "juggling"}
    config = settings("tiny", id2label=names, label2id={name: i for i, name in names.items()})
    theirs, video = make_classifier(config), some_video(config)
    theirs.save_pretrained(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.3, 0.2]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    ours = load_classifier(tmp_path)
    assert ours.card.classes == ("archery", "bowling", "juggling")
    with torch.no_grad():
        torch.testing.assert_close(ours(video), theirs(pixel_values(video, mean, std)).logits, **TOLERANCE)


# What each of their two processors does with a clip: the class and the settings.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "video, its default": ("VideoMAEVideoProcessor", {}),
    "image, its default": ("VideoMAEImageProcessor", {}),
    "video, other statistics": (
        "VideoMAEVideoProcessor", {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.3, 0.2]},
    ),
    "not normalized": ("VideoMAEVideoProcessor", {"do_normalize": False}),
    "not rescaled": (
        "VideoMAEImageProcessor", {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    ),
    "rescaled to [0, 2]": ("VideoMAEImageProcessor", {"rescale_factor": 1 / 127.5}),
    "neither": ("VideoMAEVideoProcessor", {"do_rescale": False, "do_normalize": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_their_processors_are_honored(name: str, tmp_path: Path):
    import transformers

    kind, given = PROCESSORS[name]
    config = settings("tiny", num_labels=7)
    theirs, video = make_classifier(config), some_video(config)
    side = config.image_size
    processor = getattr(transformers, kind)(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **given
    )
    theirs.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    frames = [list(clip) for clip in video] if kind == "VideoMAEImageProcessor" else list(video)
    pixels = processor(frames, return_tensors="pt")["pixel_values"].float()
    if name == "neither":
        theirs = theirs.double()  # Pixels up to 255 lose digits in float32.
        pixels = pixels.double()
    with torch.no_grad():
        expected = theirs(pixels).logits.float()
        torch.testing.assert_close(load_classifier(tmp_path)(video), expected, rtol=0.0, atol=2e-5)


def test_their_nested_processors_are_read(tmp_path: Path):
    make_classifier(settings("tiny")).save_pretrained(tmp_path)
    nested = {
        "video_processor": {"image_mean": [0.1, 0.2, 0.3]},
        "image_processor": {"image_mean": [0.1, 0.2, 0.3]},
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert load_classifier(tmp_path).config.encoder.mean == (0.1, 0.2, 0.3)


def test_processors_that_contradict_each_other_are_refused(tmp_path: Path):
    from transformers import VideoMAEVideoProcessor

    make_classifier(settings("tiny")).save_pretrained(tmp_path)
    VideoMAEVideoProcessor().save_pretrained(tmp_path)
    image = tmp_path / "preprocessor_config.json"
    image.write_text(json.dumps({"image_mean": [0.5] * 3, "do_rescale": True, "size": 224}))
    load_model(tmp_path)
    image.write_text(json.dumps({"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}))
    with pytest.raises(UserError, match=r"video_preprocessor_config\.json and preprocessor_config\.json"):
        load_model(tmp_path)


def test_a_processor_that_is_not_understood_is_refused(tmp_path: Path):
    make_classifier(settings("tiny")).save_pretrained(tmp_path)
    for key, value in {
        "image_mean": "0.5", "image_std": [0.5, 0.5], "rescale_factor": 0, "do_rescale": "yes",
        "do_normalize": 1, "image_mean ": None, "rescale_factor ": [1, 2, 3],
    }.items():  # fmt: skip
        content = {key.strip(): value} if value is not None else {"image_mean": [0.5, None, 0.5]}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"preprocessor_config\.json") as caught:
            load_model(tmp_path)
        assert key.strip() in str(caught.value)


def test_a_raw_target_needs_the_statistics_that_transformers_assumes(tmp_path: Path):
    """Its loss undoes ImageNet's normalization, also if the processor used another."""
    from transformers import VideoMAEVideoProcessor

    make_autoencoder(settings("tiny", use_mean_pooling=False, norm_pix_loss=False)).save_pretrained(tmp_path)
    VideoMAEVideoProcessor().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="norm_pix_loss"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "given", [{"problem_type": "regression", "num_labels": 1}, {"num_labels": 1}, {"problem_type": "other"}]
)
def test_a_regression_is_refused(given: dict[str, Any], tmp_path: Path):
    config = settings("tiny", num_labels=given.get("num_labels", 7))
    make_classifier(config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | given))
    with pytest.raises(UserError, match=r"config\.json: expected problem_type .*(regression|other)"):
        load_model(tmp_path)


def test_one_class_with_its_own_probability_is_read(tmp_path: Path):
    make_classifier(
        settings("tiny", num_labels=1, problem_type="multi_label_classification")
    ).save_pretrained(tmp_path)
    assert load_classifier(tmp_path).card.multi_label


@pytest.mark.parametrize(
    ("kind", "multi_label"),
    [(None, False), ("single_label_classification", False), ("multi_label_classification", True)],
)
def test_their_problem_type_says_whether_a_model_is_multi_label(
    kind: str | None, multi_label: bool, tmp_path: Path
):
    make_classifier(settings("tiny", problem_type=kind)).save_pretrained(tmp_path)
    assert load_classifier(tmp_path).card.multi_label is multi_label


def test_their_weights_in_parts_are_joined(tmp_path: Path):
    config = settings("tiny", use_mean_pooling=False)
    theirs = make_autoencoder(config)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_predict_alike(theirs, load_autoencoder(tmp_path), some_video(config), some_mask(config, 0.75))


# The other way.


def back(ours: Model, folder: Path) -> Any:
    """Write with Tubelet, read with transformers: no weight is missing or left over."""
    save_model(ours, folder / "written", "huggingface")
    from transformers import AutoModelForPreTraining, AutoModelForVideoClassification

    auto = AutoModelForPreTraining if isinstance(ours, MaskedAutoencoder) else AutoModelForVideoClassification
    theirs, info = auto.from_pretrained(folder / "written", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not info.get("error_msgs")
    return theirs.eval()


def our_config(name: str) -> AutoencoderConfig:
    config = settings(name)
    return AutoencoderConfig(
        encoder=EncoderConfig(
            frames=config.num_frames,
            image_size=config.image_size,
            tubelet=config.tubelet_size,
            patch_size=config.patch_size,
            dim=config.hidden_size,
            depth=config.num_hidden_layers,
            heads=config.num_attention_heads,
            mlp_dim=config.intermediate_size,
        ),
        decoder=DecoderConfig(
            dim=config.decoder_hidden_size,
            depth=config.decoder_num_hidden_layers,
            heads=config.decoder_num_attention_heads,
            mlp_dim=config.decoder_intermediate_size,
            final_norm_eps=1e-5,  # theirs, also if the settings have another
        ),
    )


@pytest.mark.parametrize("normalize", ["channel", None])
@pytest.mark.parametrize("name", SIZES)
def test_our_autoencoder_is_theirs(name: str, normalize: Any, tmp_path: Path):
    ours = MaskedAutoencoder(replace(our_config(name), target=PixelTarget(normalize=normalize)))
    randomize(ours)
    theirs = back(ours, tmp_path)
    assert type(theirs).__name__ == "VideoMAEForPreTraining"
    assert theirs.config.norm_pix_loss == (normalize is not None)
    assert_predict_alike(theirs, ours, some_video(theirs.config), some_mask(theirs.config, 0.75))


@pytest.mark.parametrize("pool", ["mean", "first"])
@pytest.mark.parametrize("name", SIZES)
def test_our_classifier_is_theirs(name: str, pool: Any, tmp_path: Path):
    encoder = replace(our_config(name).encoder, final_norm=False)
    head = LinearHeadConfig(pool=pool, norm_eps=1e-5 if pool == "mean" else encoder.norm_eps)
    ours = VideoClassifier(ClassifierConfig(encoder=encoder, classes=3, head=head))
    randomize(ours)
    ours.card = ModelCard(classes=("a", "b", "c"))
    theirs = back(ours, tmp_path)
    assert type(theirs).__name__ == "VideoMAEForVideoClassification"
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert theirs.config.use_mean_pooling == (pool == "mean")
    video = some_video(theirs.config)
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixel_values(video)).logits, ours(video), **TOLERANCE)


def test_their_multi_label_loss_is_ours(tmp_path: Path):
    encoder = replace(our_config("tiny").encoder, final_norm=False)
    ours = VideoClassifier(ClassifierConfig(encoder=encoder, classes=3))
    randomize(ours)
    ours.card = ModelCard(multi_label=True)
    theirs = back(ours, tmp_path)
    video, classes = some_video(theirs.config), torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    batch = Batch(video, classes, torch.arange(2), torch.arange(2), ["a", "b"], {})
    with torch.no_grad():
        expected = theirs(pixel_values(video), labels=classes.float()).loss
        torch.testing.assert_close(ClassifyTask(ours)(batch)["loss"], expected, **TOLERANCE)


def test_our_epsilon_of_the_last_norm_differs_by_less_than_the_tolerance(tmp_path: Path):
    """Theirs is 1e-5 there, VideoMAE's own is 1e-6."""
    encoder = replace(our_config("tiny").encoder, final_norm=False)
    ours = VideoClassifier(ClassifierConfig(encoder=encoder, classes=3))
    randomize(ours)
    theirs = back(ours, tmp_path)
    video = some_video(theirs.config)
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixel_values(video)).logits, ours(video), **TOLERANCE)


def test_their_processor_reads_our_pixel_statistics(tmp_path: Path):
    from transformers import AutoImageProcessor

    encoder = replace(our_config("tiny").encoder, final_norm=False, mean=(0.5, 0.4, 0.3), std=(0.5, 0.3, 0.2))
    ours = VideoClassifier(ClassifierConfig(encoder=encoder, classes=3))
    randomize(ours)
    theirs = back(ours, tmp_path)
    video = some_video(theirs.config, batch=1)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "written")
    frames = [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in video[0]]
    pixels = processor(frames, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, pixel_values(video, encoder.mean, encoder.std), **TOLERANCE)
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixels).logits, ours(video), **TOLERANCE)


# The published width and depth.


def test_their_base_autoencoder_is_ours_at_nine_tenths_masked(tmp_path: Path):
    from transformers import VideoMAEConfig

    config: Any = VideoMAEConfig(use_mean_pooling=False)
    theirs, video = make_autoencoder(config), some_video(config, batch=1)
    theirs.save_pretrained(tmp_path)
    ours = load_autoencoder(tmp_path)
    shutil.rmtree(tmp_path)  # 380 MB
    mask = TubeMasking(ratio=0.9).sample(ours.grid, 1, torch.Generator().manual_seed(0))
    masked = torch.zeros(1, ours.grid.volume, dtype=torch.bool).scatter_(1, mask.masked, True)
    assert masked.sum() == 1408
    assert_predict_alike(theirs, ours, video, masked)


def test_their_base_classifier_is_ours(tmp_path: Path):
    """On a small clip: width and depth are what accumulates rounding errors."""
    from transformers import VideoMAEConfig

    config: Any = VideoMAEConfig(image_size=96, num_frames=8)
    config.num_labels = 400
    theirs, video = make_classifier(config), some_video(config, batch=1)
    theirs.save_pretrained(tmp_path)
    ours = load_classifier(tmp_path)
    shutil.rmtree(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(video), theirs(pixel_values(video)).logits, **TOLERANCE)
