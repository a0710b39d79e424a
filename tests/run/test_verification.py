"""`tubelet zoo --verify`, against a web server on this machine."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.layouts import (
    TINY,
    huggingface_autoencoder,
    huggingface_config,
    mae_st_autoencoder,
    mmaction2,
    random_weights,
    with_constants,
)
from tests.checkpoints.plain import mae_st_tokens
from tests.web_server import serve
from tubelet.checkpoints import catalogue as module
from tubelet.checkpoints.catalogue import PublishedCheckpoint, catalogue, csv_line
from tubelet.checkpoints.load import load_model
from tubelet.errors import UserError
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.encoder import EncoderConfig
from tubelet.run.verification import answer, fixed_clip, verify_published

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("TUBELET_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def row(**given: Any) -> PublishedCheckpoint:
    common: dict[str, Any] = {"name": "tiny", "family": "mae_st", "size": "small", "contains": "autoencoder"}
    return PublishedCheckpoint(
        **{**common, "data": "K400", "license": "MIT", "heads": 3, "note": 'a, "b"', **given}
    )


def write(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"model": random_weights(mae_st_autoencoder(TINY))}, folder / "x.pth")
    return folder / "x.pth"


def test_lines_of_the_catalogue_are_written_as_they_are() -> None:
    lines = Path(module.__file__).with_suffix(".csv").read_text(encoding="utf-8").splitlines()
    assert [csv_line(row) for row in catalogue().values()] == lines[1:]


def test_the_fixed_clip_is_made_of_whole_numbers() -> None:
    clip = fixed_clip(EncoderConfig())
    assert (clip.shape, clip.dtype) == ((1, 16, 3, 224, 224), torch.uint8)
    for t, c, y, x in ((3, 2, 100, 7), (15, 0, 223, 223)):
        assert clip[0, t, c, y, x] == (y * (c + 1) + 2 * x + y * x // 16 + 9 * t) % 256
    assert len(clip.unique()) == 256


def test_the_answer_is_that_of_the_model(tmp_path: Path) -> None:
    """Against the plain functions of MAE-ST's encoder, for an encoder without a head."""
    weights = random_weights(mae_st_autoencoder(TINY))
    torch.save({"model": weights}, tmp_path / "x.pth")
    model = load_model(tmp_path / "x.pth", heads=3)
    assert isinstance(model, MaskedAutoencoder)
    clip = fixed_clip(model.config.encoder)
    tokens = mae_st_tokens(clip, weights, TINY.depth, 3)
    with torch.no_grad():
        assert torch.allclose(model.encode(clip), model.encoder.norm(tokens)[:, 1:], atol=1e-4)
    kind, loss = answer(model).split()
    assert kind == "loss"
    assert 0.1 < float(loss) < 10


def test_a_file_is_downloaded_loaded_and_described(tmp_path: Path) -> None:
    content = write(tmp_path / "site").read_bytes()
    with serve(tmp_path / "site") as server:
        published = row(url=f"{server.url}/x.pth")
        found = verify_published(published)
        assert found.problems == ()
        assert (found.row.bytes, found.row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        parameters = sum(value.numel() for value in random_weights(mae_st_autoencoder(TINY)).values())
        assert found.row.architecture == (
            f"autoencoder 4 x 12 encoder 2 x 24 / 3 decoder 1 x 64 / 2 {parameters} parameters"
        )
        [cells] = csv.reader(io.StringIO(str(found)))
        assert cells == ["" if value is None else str(value) for value in vars(found.row).values()]
        assert verify_published(found.row) == found


def test_what_differs_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "site")
    good = verify_published(row(), path).row
    assert good.answer
    for changed in (
        {"sha256": "0" * 64}, {"bytes": 3}, {"architecture": "autoencoder 1 x 1"}, {"answer": "loss 99.0"},
        {"answer": f"scores {good.answer.split()[1]}"}, {"md5_prefix": "000000"}, {"contains": "classifier"},
    ):  # fmt: skip
        [problem] = verify_published(replace(good, **changed), path).problems
        assert "expected" in problem, changed
    loss = float(good.answer.split()[1])
    assert verify_published(replace(good, answer=f"loss {loss + 5e-4}"), path).problems == ()


def test_whole_models_and_classifiers_are_verified(tmp_path: Path) -> None:
    save_file(random_weights(huggingface_autoencoder(TINY)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(TINY)))
    found = verify_published(row(family="huggingface"), tmp_path)
    assert found.problems == ()
    assert found.row.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    torch.save({"state_dict": with_constants(random_weights(mmaction2(TINY)), TINY)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="image_size"):
        verify_published(row(contains="classifier"), tmp_path / "x.pth")


def test_the_command_prints_lines_and_reports_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tubelet: Command
) -> None:
    write(tmp_path / "site")
    with serve(tmp_path / "site") as server:
        rows = {
            "tiny": row(url=f"{server.url}/x.pth"),
            "gone": row(name="gone", url=f"{server.url}/y.pth"),
            "by_hand": row(name="by_hand", page="https://example.org", steps="follow the link"),
        }
        monkeypatch.setattr(module, "catalogue", lambda: rows)
        code, out, err = tubelet("zoo", "--verify")
        assert code == 1
        assert [line.split(",")[0] for line in out.splitlines()] == ["tiny"]
        assert "gone: there is no file at" in err
        code, out, err = tubelet("zoo", "--verify", f"by_hand={tmp_path / 'site' / 'x.pth'}")
        assert (code, out.split(",")[0]) == (0, "by_hand")
        code, out, err = tubelet("zoo", "--verify", "by_hand")
        assert (code, out) == (1, "")
        assert "follow the link" in err
        code, _, err = tubelet("zoo", "--verify", "tinyy")
        assert code == 1
        assert "did you mean 'tiny'" in err
    code, out, _ = tubelet("zoo", "tiny", "gone")
    assert code == 0
    assert out.count("license") == 2
