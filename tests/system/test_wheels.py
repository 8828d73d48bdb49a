"""A checkpoint in the pieces of a zip, in packages: whole or absent, checked, once."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
from packaging.requirements import Requirement
from paths import ROOT

from peftbench.core.configs import WheelsConfig
from peftbench.core.errors import ConfigError
from peftbench.system import hub, memo, wheels

PATTERNS = hub.CHECKPOINT_FILES
FILES = {
    "base/config.json": b"{}",
    "base/model.safetensors": bytes(range(256)) * 1000,
    "base/vocab.txt": b"a\nb\n",
    "base/README.md": b"prose",
    "base/pytorch_model.bin": b"pickle",
    "base/1_Pooling/config.json": b'{"other": 1}',
}


@pytest.fixture
def packages(tmp_path, monkeypatch, cache_folder) -> WheelsConfig:
    """Three installed packages with the pieces of a zip."""
    site = tmp_path / "site"
    archive = tmp_path / "base.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as whole:
        for name, content in FILES.items():
            whole.writestr(name, content)
    body = archive.read_bytes()
    cuts = [0, 1000, len(body) // 2, len(body)]
    lines = ["# a comment"]
    for n in range(3):
        piece = site / f"part-{n + 1}" / f"base.zip.00{n + 1}"
        piece.parent.mkdir(parents=True)
        piece.write_bytes(body[cuts[n] : cuts[n + 1]])
        about = site / f"a_part_{n + 1}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: a-part-{n + 1}\nVersion: 1.0\n"
        )
        (about / "RECORD").write_text(f"part-{n + 1}/{piece.name},,\na/README.md,,\n")
        lines.append(f"a-part-{n + 1}==1.0 --hash=sha256:{n:064}")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/own.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(wheels, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.syspath_prepend(site)
    return WheelsConfig(group="own", archive="base.zip", sha256=hashlib.sha256(body).hexdigest())


def test_what_a_checkpoint_needs_is_unpacked_once(packages, cache_folder, capsys):
    assert wheels.available(packages)
    folder = wheels.unpacked(packages, PATTERNS)
    assert folder.is_relative_to(cache_folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name.partition("/")[2]: FILES[name]
        for name in ("base/config.json", "base/model.safetensors", "base/vocab.txt")
    }
    assert capsys.readouterr().err.count("unpacking base.zip") == 1
    (folder / "config.json").write_bytes(b"mine")
    assert wheels.unpacked(packages, PATTERNS) == folder
    assert (folder / "config.json").read_bytes() == b"mine"
    assert capsys.readouterr().err == ""


def test_one_file_of_another_format_is_converted_once(
    packages, tmp_path, cache_folder, monkeypatch
):
    (tmp_path / "requirements/own.txt").write_text("a-part-1==1.0 --hash=sha256:0\n")
    source = tmp_path / "site/part-1/base.zip.001"
    packed = replace(
        packages,
        archive="base.zip.001",
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        conversion="gguf",
    )
    monkeypatch.setitem(wheels.CONVERSIONS, "gguf", "a_library_that_is_missing")
    assert not wheels.available(packed), "nothing reads it"
    assert "and `pip install a_library_that_is_missing`" in wheels.how_to_install(packed)
    monkeypatch.setitem(wheels.CONVERSIONS, "gguf", "json")
    assert wheels.available(packed)
    made = []

    def convert(kind, given, draft):
        made.append((kind, given))
        (draft / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(wheels.conversion, "convert", convert)
    model = replace(tiny.one_run("model=minilm_l3").model, wheels=packed)
    assert hub.at_hand(model) is None, "a plan converts nothing"
    assert not hub.comes_from_hub(model)
    hub.require_obtainable(model)
    assert not made
    folder = hub.locate(model)
    assert folder == wheels.unpacked(packed, PATTERNS) == hub.at_hand(model)
    assert folder.parent == cache_folder / "converted"
    assert wheels.unpacked(packed, PATTERNS) == folder
    assert made == [("gguf", source)]
    with pytest.raises(ConfigError, match=r"base.zip.001 hash to \w{12}, not to 000000000000"):
        wheels.unpacked(replace(packed, sha256="0" * 64), PATTERNS)
    with pytest.raises(ConfigError, match=r"model.wheels.conversion"):
        wheels.available(replace(packed, conversion="nought"))


def test_what_was_unpacked_outlives_the_packages(packages, monkeypatch, tmp_path):
    folder = wheels.unpacked(packages, PATTERNS)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path / "site")])
    assert wheels.available(packages)
    assert wheels.unpacked(packages, PATTERNS) == folder


@pytest.mark.parametrize("lost", ["site/part-2/base.zip.002", "site/a_part_3-1.0.dist-info"])
def test_a_missing_piece_is_as_good_as_none(packages, tmp_path, lost):
    path = tmp_path / lost
    path.rename(tmp_path / "elsewhere")
    assert not wheels.available(packages)


def test_another_zip_is_refused(packages, tmp_path, cache_folder):
    with open(tmp_path / "site/part-2/base.zip.002", "r+b") as file:
        file.seek(500)
        before = file.read(1)
        file.seek(500)
        file.write(bytes([before[0] ^ 1]))
    with pytest.raises(ConfigError, match=r"base.zip hash to \w{12}, not to .*: install .* again"):
        wheels.unpacked(packages, PATTERNS)
    assert not [path for path in (cache_folder / "unpacked").iterdir() if path.is_dir()]


@pytest.mark.parametrize("kind", ["known before", "met on the way"])
def test_a_full_disk_is_told_and_leaves_nothing(packages, monkeypatch, cache_folder, kind):
    if kind == "known before":
        monkeypatch.setattr(wheels.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        message = r"0 MB are needed, 0 MB are free\); make room there, or set PEFTBENCH_CACHE"
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
        message = r"base.zip cannot be unpacked into .* \(No space left on device\); make room"
    with pytest.raises(ConfigError, match=message):
        wheels.unpacked(packages, PATTERNS)
    assert not [path for path in (cache_folder / "unpacked").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_made_is_told(packages, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set PEFTBENCH_CACHE to a folder that can be written"):
        wheels.unpacked(packages, PATTERNS)


def test_a_killed_process_leaves_a_draft_that_the_next_one_removes(packages, cache_folder):
    place = wheels.place_of(packages)
    draft = place.with_name(f".{place.name}")
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    folder = wheels.unpacked(packages, PATTERNS)
    assert (folder / "model.safetensors").read_bytes() == FILES["base/model.safetensors"]
    assert not draft.exists()


def test_processes_that_ask_at_once_share_one(packages, tmp_path, cache_folder):
    code = (
        "import sys; from pathlib import Path; from peftbench.system import wheels\n"
        "from peftbench.core.configs import WheelsConfig\n"
        f"wheels.REQUIREMENTS = Path({str(tmp_path / 'requirements')!r})\n"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        f"print(wheels.unpacked(WheelsConfig.from_json({packages.to_json()!r}), {PATTERNS!r}))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    told = [process.communicate() for process in started]
    assert {process.returncode for process in started} == {0}
    assert {out.strip() for out, _ in told} == {str(wheels.place_of(packages))}
    assert sum(err.count("unpacking") for _, err in told) == 1


# the model of the packaged configs


def test_without_packages_and_hub_one_sentence_says_how(monkeypatch):
    model = tiny.one_run("model=mpnet_base").model
    monkeypatch.setattr(wheels, "available", lambda _: False)
    with pytest.raises(ConfigError) as refused:
        hub.locate(model)
    message = str(refused.value)
    assert message.startswith(
        "the packages of mpnet_base are not installed (`uv sync --group mpnet`"
    )
    path = wheels.REQUIREMENTS / "mpnet.txt"
    assert f"`pip install --no-deps --require-hashes -r {path}`" in message
    assert "sentence-transformers/all-mpnet-base-v2 at e8c3b32edf54 could not be loaded" in message
    assert "\n" not in message
    assert path.is_file()


def test_group_of_uv_and_requirements_of_pip_name_the_same_packages():
    lines = (wheels.REQUIREMENTS / "mpnet.txt").read_text().splitlines()
    found = [re.fullmatch(r"(\S+==\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    listed = [one.group(1) for one in found if one]
    assert len(listed) == len([line for line in lines if not line.startswith("#")]) == 5
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["dependency-groups"]["mpnet"] == listed
    names = {Requirement(one).name for one in listed}
    metadata = project["tool"]["uv"]["dependency-metadata"]
    assert names <= {one["name"] for one in metadata if one["requires-dist"] == []}


def test_a_group_that_is_not_there():
    config = WheelsConfig(group="nought", archive="a.zip", sha256="0")
    with pytest.raises(ConfigError, match=r"model.wheels.group=nought: the groups are .*mpnet"):
        wheels.available(config)


def test_prefetched_folder_has_it_whole(packages, tmp_path, monkeypatch):
    """On nodes nothing is unpacked: the folder holds plain files, under the hub's name."""
    from peftbench.system import offline_folder

    model = replace(tiny.one_run("model=mpnet_base").model, wheels=packages)
    assert not hub.comes_from_hub(model)
    found = hub.locate(model)
    assert found is not None
    assert found.is_relative_to(memo.cache_root())
    place = tmp_path / "fetched/models" / offline_folder.called(model.checkpoint, model.revision)
    place.mkdir(parents=True)
    (tmp_path / "fetched/manifest.json").write_text("{}")
    monkeypatch.setenv(offline_folder.VARIABLE, str(tmp_path / "fetched"))
    assert hub.comes_from_hub(model)
    assert hub.locate(model) == place
