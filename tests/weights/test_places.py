"""Where the files of a model may lie, and where a link may lead to."""

import os
import shutil
from pathlib import Path

import pytest

from diffusion.weights import folder, places
from diffusion.weights.files import Weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def into_cache(model, cache, revision="0a1b", main=True):
    """A snapshot as the tools of Hugging Face lay it out."""
    repo = cache / "models--me--tiny"
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    for path in filter(Path.is_file, model.rglob("*")):
        link = repo / "snapshots" / revision / path.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = repo / "blobs" / f"{revision}-{len(list((repo / 'blobs').iterdir()))}"
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs/main").write_text(f"{revision}\n")
    return repo


def opens(place):
    """Does the whole model open?"""
    found = folder.open_model(folder.find(place))
    assert all(isinstance(weights, Weights) for weights in found.weights.values())
    return found


def test_a_repository_in_the_cache(tiny_folder, cache):
    with pytest.raises(FileNotFoundError, match=r"nor in the cache .*`hf download me/tiny` brings"):
        folder.find("me/tiny")
    repo = into_cache(tiny_folder, cache)
    into_cache(tiny_folder, cache, "ffff", main=False)
    assert folder.find("me/tiny") == repo / "snapshots/0a1b"
    assert folder.find(repo) == repo / "snapshots/0a1b"
    opens("me/tiny")
    (repo / "refs/main").unlink()
    os.utime(repo / "snapshots/0a1b", (1, 1))
    assert folder.find("me/tiny") == repo / "snapshots/ffff"
    (repo / "refs/main").write_text("../../..")
    assert folder.find("me/tiny") == repo / "snapshots/ffff"


@pytest.mark.parametrize("name", ["../x", "a/../b", "a/b/c", "/etc", "a\\b"])
def test_what_is_no_repository(name):
    assert places.cached(name) is None


def test_a_folder_with_links_into_the_cache(tiny_folder, cache, tmp_path):
    """As older versions of the tools made them of `local_dir`."""
    repo = into_cache(tiny_folder, cache)
    shutil.copytree(repo / "snapshots/0a1b", tmp_path / "local", symlinks=True)
    for link in filter(Path.is_symlink, (tmp_path / "local").rglob("*")):
        real = Path(
            os.path.realpath(repo / "snapshots/0a1b" / link.relative_to(tmp_path / "local"))
        )
        link.unlink()
        link.symlink_to(real)
    opens(tmp_path / "local")


def test_a_part_that_is_linked_from_elsewhere(tiny_folder, cache, tmp_path):
    mine = Path(shutil.copytree(tiny_folder, tmp_path / "mine"))
    shutil.rmtree(mine / "vae")
    (mine / "vae").symlink_to(tiny_folder / "vae")
    opens(mine)
    (mine / "vae").unlink()
    repo = into_cache(tiny_folder, cache)
    (mine / "vae").symlink_to(repo / "snapshots/0a1b/vae")
    opens(mine)
    (mine / "vae").unlink()
    os.rename(repo, tmp_path / "models--me--tiny")  # a cache elsewhere
    (mine / "vae").symlink_to(tmp_path / "models--me--tiny/snapshots/0a1b/vae")
    opens(mine)


def test_a_file_of_another_part_leads_nowhere(tiny_folder, tmp_path):
    mine = Path(shutil.copytree(tiny_folder, tmp_path / "mine"))
    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    shutil.rmtree(mine / "vae")
    (mine / "vae").symlink_to(other / "vae")
    (mine / "unet/config.json").unlink()
    (mine / "unet/config.json").symlink_to(other / "unet/config.json")
    with pytest.raises(ValueError, match=r"unet/config.json is a link that leads out of"):
        opens(mine)
    (other / "vae/config.json").unlink()
    (other / "vae/config.json").symlink_to(tiny_folder / "vae/config.json")
    shutil.copy(other / "unet/config.json", tmp_path / "copy")
    (mine / "unet/config.json").unlink()
    shutil.copy(tmp_path / "copy", mine / "unet/config.json")
    with pytest.raises(ValueError, match=r"vae/config.json is a link that leads out of"):
        opens(mine)


def test_home_is_understood(tiny_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert folder.find("~/tiny") == tiny_folder
