"""Try the lowest or the newest supported versions of the dependencies.

A smoke set runs in an environment of its own: every module imports, the contracts of one family,
exports to peft, one run from the command line. `lowest` must pass. `newest` is about releases that
we cannot hold back, also those beyond the upper bounds of pyproject.toml: where something fails,
each library that is newer than the tested one is tried alone beside the tested others, those that
fail are named, and the exit code stays 0. So it does where the newest do not install together.

    uv run python scripts/check_versions.py lowest
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from peftbench.cli.doctor import tested_versions

ROOT = Path(__file__).parents[1]

IMPORT_ALL = """
import importlib, pkgutil
import peftbench
for module in pkgutil.walk_packages(peftbench.__path__, "peftbench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

CONTRACTS = ["tests/contracts", "-m", "", "-k", "distilbert and not in_a_pack and not bf16"]
EXPORTS = ["tests/methods/test_peft_export.py"]
ONE_RUN = "method=lora task=synthetic_paraphrase model=minilm size=64 budget=steps budget.steps=4"


class Environment:
    """A virtual environment with peftbench, resolved without the tested versions.

    Args:
        folder: where it is made.
        kind: lowest or newest.

    Raises:
        CalledProcessError: if these versions do not install beside each other.
    """

    def __init__(self, folder: Path, kind: str):
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.uv("venv", "-q", "--python", "3.11", str(folder))
        words = ["--resolution", "lowest-direct"]
        if kind == "newest":
            above = folder / "no-upper-bounds.txt"
            above.write_text("\n".join(without_upper_bounds()))
            words = ["--resolution", "highest", "--override", str(above)]
        # no-config: pyproject.toml's constraint-dependencies hold the tested versions
        self.install(*words, "-e", str(ROOT))
        self.install("pytest>=8.3", "pytest-xdist>=3.6", "pytest-timeout>=2.3")

    def uv(self, *words: str) -> None:
        """Run uv, quietly."""
        subprocess.run([shutil.which("uv") or ".uv/bin/uv", *words], check=True, cwd=ROOT)

    def install(self, *words: str) -> None:
        """Install into the environment."""
        self.uv("pip", "install", "-q", "--no-config", "--python", str(self.python), *words)

    def versions(self) -> dict[str, str]:
        """The installed version of each library."""
        words = ["pip", "list", "-q", "--no-config", "--format", "json", "--python"]
        uv = shutil.which("uv") or ".uv/bin/uv"
        done = subprocess.run(
            [uv, *words, str(self.python)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        return {one["name"]: one["version"] for one in json.loads(done.stdout)}

    def failed(self) -> list[str]:
        """The parts of the smoke set that fail, by name; their output is printed."""
        results = self.folder / "runs"
        shutil.rmtree(results, ignore_errors=True)
        pytest = ["-m", "pytest", "-q", "-x", "-n", "auto", "--timeout", "120"]
        parts: dict[str, list[str]] = {
            "imports": ["-c", IMPORT_ALL],
            "contracts": [*pytest, *CONTRACTS],
            "exports": [*pytest, *EXPORTS],
            "one run": ["-m", "peftbench", "run", *ONE_RUN.split(), "--results", str(results)],
        }
        return [name for name, words in parts.items() if not self._passes(words)]

    def _passes(self, words: list[str]) -> bool:
        done = subprocess.run(
            [self.python, *words],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(done.stdout[-2000:])
        return done.returncode == 0


def without_upper_bounds() -> list[str]:
    """The dependencies of pyproject.toml, each with its lower bound alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for one in map(Requirement, project["dependencies"]):
        lower = ",".join(str(bound) for bound in one.specifier if bound.operator == ">=")
        found.append(f"{one.name}{lower}" + (f" ; {one.marker}" if one.marker else ""))
    return found


def culprits(environment: Environment, newer: dict[str, str]) -> list[str]:
    """The libraries that break the smoke set where all others are as tested; several may.

    Args:
        environment: with the newest of all.
        newer: the tested versions of those that are newer there.
    """
    newest = environment.versions()
    environment.install(*(f"{name}=={tested}" for name, tested in newer.items()))
    found = []
    for name, tested in newer.items():
        try:
            environment.install(f"{name}=={newest[name]}")
            broken = environment.failed()
        except subprocess.CalledProcessError:
            print(f"{name} {newest[name]} does not install beside the tested versions")
            broken = []
        if broken:
            found.append(f"{name} {newest[name]}")
        environment.install(f"{name}=={tested}")
    return found


def main() -> int:
    """Resolve, run the smoke set, name what broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["lowest", "newest"])
    kind = parser.parse_args().kind
    with tempfile.TemporaryDirectory() as folder:
        try:
            environment = Environment(Path(folder) / "venv", kind)
        except subprocess.CalledProcessError:
            if kind == "lowest":
                raise
            print("WARNING: newest: these releases do not install beside each other, as uv says")
            return 0
        tested = tested_versions()
        here = environment.versions()  # without those of extras, which only developers have
        other = {n: v for n, v in tested.items() if here.get(n, v) != v}
        print(f"{kind}:", ", ".join(f"{n} {here[n]}" for n in other) or "as tested")
        failed = environment.failed()
        if not failed:
            print(f"{kind}: the smoke set passed")
            return 0
        if kind == "lowest":
            print(f"lowest: failed: {', '.join(failed)}")
            return 1
        named = culprits(environment, other) or ["several together of " + ", ".join(other)]
        print(f"WARNING: newest: {', '.join(failed)} failed because of {', '.join(named)}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
