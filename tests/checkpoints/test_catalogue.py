"""The table of published checkpoints."""

import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tubelet.checkpoints.catalogue import NOT_STATED, PUBLISHED, Hub, Published, Web, find
from tubelet.errors import UserError

rows = pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)


def urls(row: Published) -> list[str]:
    return [x for x in (row.source.url, row.source.mirror) if x] if isinstance(row.source, Web) else []


def test_names_and_sources_are_unique():
    assert len({row.name for row in PUBLISHED}) == len(PUBLISHED)
    sources = [str(row.source) for row in PUBLISHED if row.source]
    assert len(set(sources)) == len(sources)


@rows
def test_a_name_says_what_it_is(row: Published):
    method = r"videomae|videomaev2|mae_st"
    assert re.fullmatch(
        rf"({method})_{row.size}(_(k400|k600|k700|k710|ssv2|ucf101|hybrid|100x4|200x4))(_800e)?"
        r"(_(finetuned|distilled))?(_(hf|mmaction2|pyslowfast|demo))?",
        row.name,
    )
    assert ("_finetuned" in row.name or "_distilled" in row.name) == (row.contains == "classifier")
    assert row.data == NOT_STATED or row.data.lower().removeprefix("unlabeled") in row.name
    assert row.name.endswith("_mmaction2") == (row.family == "mmaction2")
    if row.family == "huggingface":
        assert row.name.endswith("_hf")


@rows
def test_a_row_can_be_got(row: Published):
    assert (row.source is None) == (row.obtainable is not None)
    if row.obtainable:
        assert "by hand" in row.obtainable
        assert "https://github.com/" in row.obtainable
        for name in re.findall(r"\w+_hf\b", row.obtainable):
            assert find(name).source
    for url in urls(row):
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert re.fullmatch(r"[\w./-]+\.(pth|pyth)", parts.path)
    if isinstance(row.source, Hub):
        assert re.fullmatch(r"(MCG-NJU|OpenGVLab)/[\w.-]+", row.source.repo)


@rows
def test_a_row_is_complete(row: Published):
    assert row.license in ("CC-BY-NC-4.0", NOT_STATED)
    assert row.note
    assert (row.top1 is not None) == (row.protocol is not None) == (row.contains == "classifier")
    assert row.top5 is None or (row.top1 is not None and row.top1 < row.top5 < 100)
    assert set(row.given) <= {"heads", "decoder_heads"}
    assert all(isinstance(value, int) for value in row.given.values())
    assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.sha256)
    assert row.md5_prefix is None or re.fullmatch(r"[0-9a-f]{6}", row.md5_prefix)


def test_the_checksums_of_mae_st_are_there():
    released = [row for row in PUBLISHED if row.name.startswith("mae_st") and row.name.count("_") == 3]
    assert len(released) == 6
    assert len({row.md5_prefix for row in released if row.md5_prefix}) == 6
    for row in released:
        assert len(urls(row)) == 2
        assert all(row.data.lower() in url for url in urls(row))
        assert f"vit_{row.size}" in urls(row)[0]
        assert f"/vit_{row.size[0]}/" in urls(row)[1]
    assert find("mae_st_large_k400").md5_prefix == "edf3a5"
    assert find("mae_st_huge_k700").md5_prefix == "4c4e3c"


def test_how_many_there_are_of_each():
    count = {
        family: sum(row.family == family for row in PUBLISHED) for family in {r.family for r in PUBLISHED}
    }
    assert count == {"videomae": 18, "huggingface": 13, "videomaev2": 9, "mae_st": 11, "mmaction2": 4}


def test_what_files_tell_wrongly_is_given():
    small = [row for row in PUBLISHED if row.family == "huggingface" and row.size == "small"]
    assert len(small) == 2
    assert all(row.given == {"heads": 6} for row in small)
    for row in PUBLISHED:
        if row.family == "mae_st":
            assert row.given == {"decoder_heads": 16 if row.name.endswith("demo") else 8}


def test_mmaction2s_files_are_of_the_size_they_say():
    for row in PUBLISHED:
        if row.family == "mmaction2":
            name = urls(row)[0].rpartition("/")[2]
            assert name.startswith(f"vit-{row.size}-")
            assert ("videomaev2" in name) == row.name.startswith("videomaev2")


def test_a_copy_on_the_hub_is_of_the_model_it_is_named_after():
    for row in PUBLISHED:
        if row.family != "huggingface":
            continue
        original = find(row.name.removesuffix("_hf"))
        assert (row.size, row.contains, row.data, row.top1) == (
            original.size, original.contains, original.data, original.top1,
        )  # fmt: skip
        assert isinstance(row.source, Hub)
        repo = row.source.repo.removeprefix("MCG-NJU/")
        assert repo.startswith(f"videomae-{row.size}")
        assert ("finetuned" in repo) == (row.contains == "classifier")
        assert ("short" in repo) == ("800e" in row.name)
        assert repo.endswith("ssv2") == (row.data == "SSv2")


def test_a_misspelt_name_has_a_hint():
    with pytest.raises(UserError, match="called 'mae_st_large_k401'; did you mean 'mae_st_large_k400'"):
        find("mae_st_large_k401")
    with pytest.raises(UserError, match="`tubelet zoo` lists"):
        find("???")


def test_the_table_costs_nothing_to_import():
    code = "import sys, tubelet.checkpoints.download; print({'torch', 'huggingface_hub'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
