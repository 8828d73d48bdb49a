"""One reader of yaml files: what is wrong, in which file and line."""

import re

import pytest

from peftbench.claims import schema
from peftbench.core.errors import ConfigError
from peftbench.system import yaml_files


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a: 1\nb: [1\nc: }\n", "is not a yaml file: line 3: expected ',' or ']', but got ':'"),
        (b"a: 1\na: 2\n", "is not a yaml file: line 2: found duplicate key a"),
        (
            b"a: 1\nb: \x07\n",
            "yaml file: line 2: special characters are not allowed (#x07)",
        ),
        (b"a: 1\nb: caf\xe9\n", "line 2 is not UTF-8 (byte 0xe9)"),
        (b"- 1\n", "must hold key: value lines, got list"),
        (b"5\n", "must hold key: value lines, got one value"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, body, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(body)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}.*{re.escape(said)}"):
        yaml_files.read_mapping(path)


def test_numbers_are_those_of_overrides(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 1e-3\ndate: 2024-01-02\nrank: 8\n")
    assert yaml_files.read_mapping(path) == {"lr": 0.001, "date": "2024-01-02", "rank": 8}
    assert yaml_files.parse_value("1e-3") == 0.001
    assert schema.parse_conditions("train.lr=1e-3 size=full") == {
        "train.lr": 0.001,  # as a record has it; a text would match none
        "size": "full",
    }
