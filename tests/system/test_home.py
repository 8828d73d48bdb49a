"""Users without HOME and without an entry in passwd, which is simulated by an empty passwd."""

import getpass
import os
import pwd
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftbench.core.errors import ConfigError
from peftbench.system import home, memo


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No HOME, no entry in passwd, no cache named; temporary files in a folder of this test."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "PEFTBENCH_CACHE", "XDG_CACHE_HOME", "LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"peftbench-home-{os.getuid()}"


@pytest.mark.parametrize("given", [None, ""])
def test_caches_get_a_place_and_it_is_said(nobody, monkeypatch, capsys, given):
    if given is not None:
        monkeypatch.setenv("HOME", given)
    else:
        with pytest.raises(RuntimeError):
            memo.cache_root()  # what every run failed of
    home.ensure_home()
    assert os.environ["HOME"] == str(nobody)
    assert nobody.stat().st_mode & 0o777 == 0o700
    assert memo.cache_root() == nobody / ".cache" / "peftbench"
    assert Path("~").expanduser() == nobody
    assert getpass.getuser() == str(os.getuid())
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"caches are kept in {nobody}; set HOME" in told
    home.ensure_home()
    assert capsys.readouterr().err == ""


def test_a_place_of_somebody_else_is_refused(nobody):
    nobody.symlink_to("/usr")
    with pytest.raises(ConfigError, match=r"peftbench-home-\d+ is somebody else's: set HOME"):
        home.ensure_home()
    nobody.unlink()
    nobody.mkdir()
    nobody.chmod(0o777)
    with pytest.raises(ConfigError, match="somebody else's"):
        home.ensure_home()


def test_where_nothing_can_be_made_the_refusal_says_what_to_do(nobody, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"none can be made \(Not a directory\): set HOME"):
        home.ensure_home()


def test_a_home_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/nowhere")
    home.ensure_home()
    assert os.environ["HOME"] == "/nowhere"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir="/of/passwd"))
    home.ensure_home()
    assert "HOME" not in os.environ
    assert capsys.readouterr().err == ""
