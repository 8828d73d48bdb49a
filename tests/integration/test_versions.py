"""What pyproject.toml says of versions, and what CI tries of them."""

import importlib
import sys
import tomllib

from packaging.requirements import Requirement
from paths import ROOT

sys.path.append(str(ROOT / "scripts"))
check_versions = importlib.import_module("check_versions")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_whatever_a_command_installs_is_pinned():
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    asked = [project["dependencies"], *project["optional-dependencies"].values(), *groups.values()]
    wanted = {Requirement(one).name for some in asked for one in some}
    pins = [Requirement(one) for one in PROJECT["tool"]["uv"]["constraint-dependencies"]]
    assert wanted <= {one.name for one in pins}
    for pin in pins:
        assert [bound.operator for bound in pin.specifier] == ["=="], pin


def test_the_newest_set_has_lower_bounds_alone():
    bounds = check_versions.without_upper_bounds()
    assert "torch>=2.11" in bounds
    assert len(bounds) == len(PROJECT["project"]["dependencies"])
    assert not [one for one in bounds if "<" in one]
