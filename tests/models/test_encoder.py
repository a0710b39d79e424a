"""The encoder: its pixels, its positions and its masks."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.conftest import TINY, count, randomize
from tubelet.masking import RandomMasking
from tubelet.models.encoder import EncoderConfig, PatchEmbedding, VideoEncoder
from tubelet.patches import patchify


@pytest.fixture
def encoder() -> VideoEncoder:
    encoder = VideoEncoder(TINY).eval()
    randomize(encoder)
    return encoder


def test_the_embedding_is_a_convolution_of_the_normalised_clip(video: Tensor):
    embedding = PatchEmbedding(TINY)
    randomize(embedding)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    clip = ((video / 255 - mean) / std).transpose(1, 2)
    weight = embedding.project.weight.reshape(24, 2, 4, 4, 3).permute(0, 4, 1, 2, 3)
    expected = F.conv3d(clip, weight, embedding.project.bias, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    ours = embedding(patchify(video, TINY.tubelet_size))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_pixel_statistics_are_the_configured_ones(video: Tensor):
    config = EncoderConfig(
        frames=4, image_size=16, patch_size=4, dim=96, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    embedding = PatchEmbedding(config)
    with torch.no_grad():
        embedding.project.weight.copy_(torch.eye(96))
        embedding.project.bias.zero_()
    pixel = embedding(patchify(video, config.tubelet_size))[0, 0, :3]
    expected = (video[0, 0, :, 0, 0] / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(pixel, expected)


def test_all_tokens_visible_is_no_mask(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    everything = torch.arange(32).expand(2, -1)
    torch.testing.assert_close(encoder(patches, everything), encoder(patches))


def test_permuting_the_visible_tokens_permutes_the_features(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    visible = RandomMasking(ratio=0.5).sample(TINY.grid, 2).visible
    order = torch.randperm(visible.shape[1])
    torch.testing.assert_close(
        encoder(patches, visible[:, order]), encoder(patches, visible)[:, order], rtol=1e-4, atol=1e-5
    )


def test_masked_pixels_do_not_matter(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    mask = RandomMasking(ratio=0.5).sample(TINY.grid, 2)
    painted = patches.scatter(1, mask.masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), 0)
    assert torch.equal(encoder(painted, mask.visible), encoder(patches, mask.visible))
    assert not torch.equal(encoder(painted), encoder(patches))


def test_where_a_token_is_matters(encoder: VideoEncoder):
    patches = torch.zeros(1, 32, 96, dtype=torch.uint8)
    features = encoder(patches)
    assert (features[0, 1:] - features[0, :1]).abs().amax(1).min() > 1e-3


def test_every_row_has_its_own_mask(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    visible = torch.tensor([[0, 5, 9], [3, 4, 31]])
    together = encoder(patches, visible)
    for row in range(2):
        alone = encoder(patches[row : row + 1], visible[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_final_norm_is_a_setting(encoder: VideoEncoder, video: Tensor):
    config = EncoderConfig(**{**vars(TINY), "final_norm": False})
    bare = VideoEncoder(config).eval()
    bare.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("norm.")})
    patches = patchify(video, TINY.tubelet_size)
    torch.testing.assert_close(encoder.norm(bare(patches)), encoder(patches))


def test_tables_and_statistics_are_not_saved(encoder: VideoEncoder):
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"embed", "transformer", "norm"}
    assert {name for name in encoder.state_dict() if name.startswith("embed")} == {
        "embed.project.weight", "embed.project.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dim", "heads", "parameters"), [(384, 6, 21_879_936), (768, 12, 86_227_200)], ids=["small", "base"]
)
def test_encoders_have_the_published_number_of_parameters(dim: int, heads: int, parameters: int):
    with torch.device("meta"):
        encoder = VideoEncoder(EncoderConfig(dim=dim, heads=heads, mlp_dim=4 * dim))
    assert count(encoder) == parameters


def test_a_clip_that_does_not_divide_into_tokens_is_refused():
    with pytest.raises(ValueError, match="height must be a multiple of 16, found 100"):
        VideoEncoder(EncoderConfig(image_size=100))
