"""The catalogue of published checkpoints."""

import csv
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tubelet.checkpoints import catalogue as module
from tubelet.checkpoints.catalogue import PublishedCheckpoint, catalogue, published_checkpoint
from tubelet.errors import UserError

ROWS = tuple(catalogue().values())
NOT_STATED = "not stated"
NAME = re.compile(
    r"(videomae|videomaev2|mae_st)_(small|base|large|huge|giant)"
    r"(_(k400|k600|k700|k710|ssv2|ucf101|hybrid|100x4|200x4))(_800e)?(_(finetuned|distilled))?"
    r"(_(hf|mmaction2|pyslowfast|demo))?"
)


def urls(row: PublishedCheckpoint) -> list[str]:
    return [url for url in (row.url, row.mirror) if url]


def test_the_file_has_a_column_for_each_field_and_no_stray_spaces():
    with Path(module.__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert list(rows[0]) == [field.name for field in fields(PublishedCheckpoint)]
    assert len(rows) == len(ROWS), "two rows have one name"
    assert [cell for row in rows for cell in row.values() if cell != cell.strip()] == []


def test_sources_are_unique():
    sources = [row.source for row in ROWS if row.source]
    assert len(set(sources)) == len(sources)


def test_names_agree_with_their_rows():
    for row in ROWS:
        assert NAME.fullmatch(row.name), row
        assert f"_{row.size}_" in row.name, row
        assert ("_finetuned" in row.name or "_distilled" in row.name) == (row.contains == "classifier"), row
        assert row.data == NOT_STATED or row.data.lower().removeprefix("unlabeled") in row.name, row
        assert row.name.endswith("_mmaction2") == (row.family == "mmaction2"), row
        assert row.family != "huggingface" or row.name.endswith("_hf"), row


def test_every_row_has_a_source_or_says_how_to_get_the_file():
    for row in ROWS:
        ways = [row.url is not None, row.hub is not None, row.page is not None]
        assert sum(ways) == 1, row
        assert (row.source is None) == (row.page is not None) == (row.steps is not None), row
        if row.page:
            assert row.page.startswith("https://github.com/"), row
            assert "by hand" in row.by_hand, row
            for name in re.findall(r"\w+_hf\b", row.by_hand):
                assert published_checkpoint(name).source, row
        for url in urls(row):
            parts = urlsplit(url)
            assert parts.scheme == "https", row
            assert re.fullmatch(r"[\w./-]+\.(pth|pyth)", parts.path), row
        assert row.mirror is None or row.url, row
        assert row.hub is None or re.fullmatch(r"(MCG-NJU|OpenGVLab)/[\w.-]+", row.hub), row
        assert row.hub_file is None or row.hub, row


def test_every_row_is_complete():
    for row in ROWS:
        assert row.family in ("videomae", "videomaev2", "mae_st", "mmaction2", "huggingface"), row
        assert row.contains in ("autoencoder", "encoder", "classifier"), row
        assert row.license in ("CC-BY-NC-4.0", NOT_STATED), row
        assert row.note, row
        assert (row.top1 is not None) == (row.protocol is not None) == (row.contains == "classifier"), row
        assert row.top5 is None or (row.top1 is not None and row.top1 < row.top5 < 100), row
        assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.sha256), row
        assert row.md5_prefix is None or re.fullmatch(r"[0-9a-f]{6}", row.md5_prefix), row
        assert all(row.describe().count(value) for value in (row.name, row.license, row.note)), row


def test_the_checksums_of_mae_st_are_there():
    released = [row for row in ROWS if row.name.startswith("mae_st") and row.name.count("_") == 3]
    assert len(released) == 6
    assert len({row.md5_prefix for row in released if row.md5_prefix}) == 6
    for row in released:
        assert len(urls(row)) == 2
        assert all(row.data.lower() in url for url in urls(row))
        assert f"vit_{row.size}" in urls(row)[0]
        assert f"/vit_{row.size[0]}/" in urls(row)[1]
    assert published_checkpoint("mae_st_large_k400").md5_prefix == "edf3a5"
    assert published_checkpoint("mae_st_huge_k700").md5_prefix == "4c4e3c"


def test_what_files_record_wrongly_is_hinted():
    for row in ROWS:
        if row.family == "huggingface" and row.size == "small":
            assert row.hints == {"heads": 6}, row
        elif row.family == "mae_st":
            assert row.hints == {"decoder_heads": 16 if row.name.endswith("demo") else 8}, row
        else:
            assert row.hints == {}, row


def test_mmaction2s_files_are_of_the_size_that_they_name():
    for row in ROWS:
        if row.family == "mmaction2":
            name = urls(row)[0].rpartition("/")[2]
            assert name.startswith(f"vit-{row.size}-"), row
            assert ("videomaev2" in name) == row.name.startswith("videomaev2"), row


def test_a_copy_on_the_hub_is_of_the_model_that_it_is_named_after():
    for row in ROWS:
        if row.family != "huggingface":
            continue
        original = published_checkpoint(row.name.removesuffix("_hf"))
        for name in ("size", "contains", "data", "top1", "top5", "protocol", "license"):
            assert getattr(row, name) == getattr(original, name), row
        assert row.hub
        repo = row.hub.removeprefix("MCG-NJU/")
        assert repo.startswith(f"videomae-{row.size}"), row
        assert ("finetuned" in repo) == (row.contains == "classifier"), row
        assert ("short" in repo) == ("800e" in row.name), row
        assert repo.endswith("ssv2") == (row.data == "SSv2"), row


def test_a_misspelled_name_has_a_hint():
    with pytest.raises(UserError, match="'mae_st_large_k401'; did you mean 'mae_st_large_k400'"):
        published_checkpoint("mae_st_large_k401")
    with pytest.raises(UserError, match="`tubelet zoo` lists"):
        published_checkpoint("???")


def test_the_catalogue_is_cheap_to_import():
    code = "import sys, tubelet.checkpoints.download; print({'torch', 'huggingface_hub'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
