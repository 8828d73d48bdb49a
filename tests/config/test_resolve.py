"""What a node is refused for before anything is trained."""

import pytest
import records

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError

METHOD = "_target_: mine.Method\nname: mine\nabout: words\nrecipe: {lr: 1e-3}\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes an option of the user's own."""
    monkeypatch.chdir(tmp_path)

    def write(group, text):
        folder = tmp_path / "configs" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(text)

    return write


def key(*words):
    (run,) = plan(*records.tiny("method=mine", *words)).runs
    return run.key


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("path: a.txt\n", r"method\.path: mine\.Method has a setting called path"),
        ("wheels: 4\n", r"method\.wheels: mine\.Method"),
        ("source: {examples: 5}\n", r"method\.source\.examples: mine\.Method"),
    ],
)
def test_a_method_has_no_setting_that_its_key_would_not_hold(own, text, setting):
    own("method", METHOD + text)
    with pytest.raises(ConfigError, match=setting + r".*; rename the setting"):
        key()


def test_a_wrapper_method_is_refused_with_the_path_of_the_setting(own):
    base = "base_method: {_target_: mine.Base, name: base, package: a}\n"
    own("method", METHOD + base)
    with pytest.raises(ConfigError, match=r"method\.base_method\.package: mine\.Base has"):
        key()


def test_other_settings_of_a_users_method_are_in_the_key(own):
    own("method", METHOD + "file: a.txt\nmembers: {_target_: mine.Inner, name: inner, depth: 1}\n")
    keys = [key(), key("method.file=b.txt"), key("method.members.depth=2"), key("method.about=x")]
    assert len(set(keys)) == 3
    assert keys[3] == keys[0]


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("from_file: {path: a.txt}\n", r"suite\.from_file\.path"),
        ("files: [{words: 1}, {path: a.txt}]\n", r"suite\.files\.1\.path"),
        ("inner: {_target_: mine.Part, package: a}\n", r"suite\.inner\.package"),
    ],
)
def test_a_suite_has_no_setting_that_its_key_would_not_hold(own, text, setting):
    own("suite", f"_target_: mine.Suite\nname: mine\n{text}")
    with pytest.raises(ConfigError, match=setting + r": mine\.Suite has a setting"):
        plan(*records.tiny("method=lora", "suite=mine"))


def test_a_packaged_suite_counts_its_examples():
    words = records.tiny("method=lora", "suite=noise")
    several = [plan(*words, f"suite.examples={n}").evaluations[0].key for n in (2, 3)]
    assert len(set(several)) == 2
