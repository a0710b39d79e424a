import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tubelet.checkpoints.load import load_model
from tubelet.clips import SegmentClip
from tubelet.data.dataset import read_clip
from tubelet.errors import UserError
from tubelet.masking import DualMasking, RandomMasking, TokenMask, TubeMasking, take
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder, clip_patches
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.target import PixelTarget
from tubelet.run.visualize import MASKED_GRAY, Animation, draw_mask, film_strip, reconstruction

SIZE, FRAMES, GUTTER, FACTOR = 32, 4, 6, 5
CONFIG = AutoencoderConfig(
    encoder=EncoderConfig(frames=FRAMES, image_size=SIZE, patch_size=8, dim=24, depth=1, heads=2, mlp_dim=48),
    decoder=DecoderConfig(dim=24, depth=1, heads=2, mlp_dim=48),
)


@pytest.fixture
def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG)


@pytest.fixture
def clip() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (FRAMES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


@pytest.fixture
def mask(model: MaskedAutoencoder) -> TokenMask:
    return RandomMasking(ratio=0.75).sample(model.grid, 1, torch.Generator().manual_seed(2))


def panels(animation: Animation) -> list[np.ndarray]:
    """Original, masked and reconstructed at the clip's own size, int64 (T, H, W, 3) each."""
    side = SIZE * FACTOR
    starts = [k * (side + GUTTER) for k in range(3)]
    large = [animation.frames[:, :, start : start + side] for start in starts]
    for panel in large:
        blocks = panel.reshape(FRAMES, SIZE, FACTOR, SIZE, FACTOR, 3)
        np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :, :1, :, :1], blocks.shape))
    return [panel[:, ::FACTOR, ::FACTOR].astype(np.int64) for panel in large]


def pixels_of(tokens: Tensor) -> np.ndarray:
    """Return which pixels (T, H, W) belong to the tokens, computed without `patchify`."""
    hidden = np.zeros((FRAMES, SIZE, SIZE), dtype=bool)
    for token in tokens.tolist():
        t, rest = divmod(token, 16)
        y, x = divmod(rest, 4)
        hidden[2 * t : 2 * t + 2, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
    return hidden


def test_panels_have_the_clips_pixels(model: MaskedAutoencoder, clip: Tensor, mask: TokenMask) -> None:
    animation = reconstruction(model, clip, mask, fps=12)
    side = SIZE * FACTOR
    assert animation.frames.shape == (FRAMES, side, 3 * side + 2 * GUTTER, 3)
    assert animation.frames.dtype == np.uint8
    assert animation.fps == 12
    assert (animation.frames[:, :, side : side + GUTTER] == 255).all()

    truth = clip.permute(0, 2, 3, 1).numpy()
    original, masked, reconstructed = panels(animation)
    hidden = pixels_of(mask.masked[0])
    np.testing.assert_array_equal(original, truth)
    np.testing.assert_array_equal(masked[~hidden], truth[~hidden])
    assert (masked[hidden] == MASKED_GRAY).all()
    np.testing.assert_array_equal(reconstructed[~hidden], truth[~hidden])
    assert (reconstructed[hidden] != truth[hidden]).mean() > 0.5


def perfect(target: PixelTarget, clip: Tensor, monkeypatch: pytest.MonkeyPatch) -> MaskedAutoencoder:
    """A model whose decoder knows the answer."""
    model = MaskedAutoencoder(replace(CONFIG, target=target))
    patches = clip_patches(clip[None], CONFIG.encoder)

    def decode(encoded: Tensor, mask: TokenMask) -> Tensor:
        return target(take(patches, mask.masked), mask.masked, model.encoder)

    monkeypatch.setattr(model.decoder, "forward", decode)
    return model


@pytest.mark.parametrize("pixels", ["zero_one", "normalized"])
@pytest.mark.parametrize("normalize", ["channel", "patch", None])
def test_a_perfect_decoder_reconstructs_the_original(
    clip: Tensor, mask: TokenMask, normalize, pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perfect(PixelTarget(normalize=normalize, pixels=pixels), clip, monkeypatch)
    original, _, reconstructed = panels(reconstruction(model, clip, mask))
    assert np.abs(original - reconstructed).max() <= 1


def test_a_frame_that_is_not_predicted_holds_the_one_before(
    clip: Tensor, mask: TokenMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perfect(PixelTarget(frames=2, spacing="stride"), clip, monkeypatch)
    original, _, reconstructed = panels(reconstruction(model, clip, mask))
    hidden = pixels_of(mask.masked[0])
    for frame in range(FRAMES):
        wanted = np.where(hidden[frame, ..., None], original[frame // 2 * 2], original[frame])
        assert np.abs(reconstructed[frame] - wanted).max() <= 1


def test_with_a_dual_mask_the_visible_tokens_stay_as_they_are(model: MaskedAutoencoder, clip: Tensor) -> None:
    mask = DualMasking(ratio=0.5).sample(model.grid, 1, torch.Generator().manual_seed(2))
    original, masked, reconstructed = panels(reconstruction(model, clip, mask))
    seen = pixels_of(mask.visible[0])
    both = seen & pixels_of(mask.masked[0])
    assert both.any()
    np.testing.assert_array_equal(reconstructed[seen], original[seen])
    np.testing.assert_array_equal(masked[seen], original[seen])
    assert (masked[~seen] == MASKED_GRAY).all()


def test_default_mask_is_a_fixed_tube(model: MaskedAutoencoder, clip: Tensor) -> None:
    first, second = reconstruction(model, clip), reconstruction(model, clip)
    np.testing.assert_array_equal(first.frames, second.frames)
    expected = TubeMasking(ratio=0.9).sample(model.grid, 1, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(first.frames, reconstruction(model, clip, expected).frames)


def test_tokens_that_are_not_predicted_stay_gray(
    model: MaskedAutoencoder, clip: Tensor, mask: TokenMask
) -> None:
    _, _, reconstructed = panels(reconstruction(model, clip, TokenMask(mask.visible, mask.masked[:, ::2])))
    assert (reconstructed[pixels_of(mask.masked[0, 1::2])] == MASKED_GRAY).all()


def test_model_is_left_as_it_was(model: MaskedAutoencoder, clip: Tensor) -> None:
    model.train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    seen: list[bool] = []
    hook = model.register_forward_hook(lambda *_: seen.append(model.training or torch.is_grad_enabled()))
    reconstruction(model, clip)
    hook.remove()
    assert seen == [False]
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_large_clips_keep_their_size(model: MaskedAutoencoder, clip: Tensor) -> None:
    frames = reconstruction(model, clip, height=SIZE, gutter=0).frames
    assert frames.shape == (FRAMES, SIZE, 3 * SIZE, 3)


def test_wrong_clip_is_refused(model: MaskedAutoencoder, clip: Tensor) -> None:
    with pytest.raises(ValueError, match="a clip must be uint8"):
        reconstruction(model, clip[:2])


@pytest.fixture
def animation() -> Animation:
    """Six different frames of a moving bar, of an odd size."""
    frames = np.full((6, 31, 45, 3), (20, 60, 120), dtype=np.uint8)
    for k, frame in enumerate(frames):
        frame[:, 5 * k : 5 * k + 8] = (230, 180, 40)
    return Animation(frames, fps=10)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_moving_pictures_open_again(animation: Animation, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"x{suffix}"
    animation.save(path)
    with Image.open(path) as picture:
        assert (picture.size, getattr(picture, "n_frames", 1)) == ((45, 31), 6)
        assert picture.info["loop"] == 0
        for k in range(6):
            picture.seek(k)
            found = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(found - animation.frames[k]).mean() < 6
            assert picture.info["duration"] == 100


def test_frames_of_a_gif_share_their_palette(animation: Animation) -> None:
    with Image.open(io.BytesIO(animation.to_bytes("gif"))) as picture:
        bars = set()
        for k in range(6):
            picture.seek(k)
            bars.add(picture.convert("RGB").getpixel((5 * k + 4, 15)))
    assert len(bars) == 1


def test_png_is_a_sheet_of_all_frames(animation: Animation, tmp_path: Path) -> None:
    animation.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (2 * 45 + 16, 3 * 31 + 2 * 16)
        sheet = np.asarray(picture)
    for k in range(6):
        top, left = k // 2 * 47, k % 2 * 61
        np.testing.assert_array_equal(sheet[top : top + 31, left : left + 45], animation.frames[k])


def test_mp4_plays(animation: Animation, tmp_path: Path) -> None:
    animation.save(str(tmp_path / "x.mp4"))
    with av.open(tmp_path / "x.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (46, 32)
        assert stream.average_rate == Fraction(10)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert len(list(container.decode(stream))) == 6


def test_a_build_without_the_encoder_is_refused(
    animation: Animation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av.codec, "codecs_available", set())
    with pytest.raises(UserError, match="pip install av"):
        animation.save(tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.avi", "x", "x.giff", "x.bmp"])
def test_unknown_suffix_names_those_that_work(animation: Animation, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="gif, webp, png, mp4"):
        animation.save(tmp_path / "folder" / name)
    assert not list(tmp_path.iterdir())


def test_film_strip_runs_from_the_first_frame_to_the_last() -> None:
    clip = torch.arange(0, 200, 20, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 16, 24)
    strip = np.asarray(film_strip(clip, count=4, height=8))
    assert strip.shape == (8, 4 * 12 + 3 * 2, 3)
    assert [int(strip[4, k * 14 + 6, 0]) for k in range(4)] == [0, 60, 120, 180]
    assert (strip[:, 12:14] == 255).all()


def test_a_classifier_with_a_decoder_reconstructs_under_its_own_mask(trained: Path, motion: Path) -> None:
    mar, plain = load_model(trained / "mar"), load_model(trained / "finetune")
    clip = read_clip(motion / "videos/test/00000.mp4", SegmentClip(4), size=32)
    shown = reconstruction(mar, clip)
    assert shown.frames.shape[0] == 4
    assert draw_mask(mar).visible.shape[1] == mar.grid.volume // 2
    assert draw_mask(mar, 0.75).visible.shape[1] == mar.grid.volume // 4
    with pytest.raises(UserError, match="without a decoder"):
        reconstruction(plain, clip)


def test_an_animation_prints_its_size_and_shows_itself(animation: Animation) -> None:
    count, height, width, _ = animation.frames.shape
    assert repr(animation).startswith(f"Animation({count} frames of {width} x {height} pixels")
    assert animation._repr_html_().startswith('<img src="data:image/webp;base64,')
