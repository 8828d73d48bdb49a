"""Pin the resolved set: write exact versions into pyproject.toml's constraint-dependencies.

uv resolves the newest versions that `dependencies` and `--hold` allow, on every Python and platform
that the project supports; what it finds replaces the list in pyproject.toml. Run the tests before
you commit it: the list says what was tested.

    uv run --no-sync python scripts/pin_versions.py --hold 'transformers==5.23.0'
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
BLOCK = re.compile(r"^constraint-dependencies = \[\n(?:    .*\n)*\]\n", re.MULTILINE)


def resolve(project: str, held: list[str]) -> list[str]:
    """Requirements with `==` and markers, sorted, of the newest set that the project allows."""
    uv = shutil.which("uv") or ".uv/bin/uv"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(BLOCK.sub(block(held), project))
        wanted = "export --no-hashes --no-annotate --no-header --no-emit-project --all-groups -q"
        done = subprocess.run([uv, *wanted.split()], cwd=folder, text=True, stdout=subprocess.PIPE)
        done.check_returncode()
    return sorted(line.strip() for line in done.stdout.splitlines())


def block(requirements: list[str]) -> str:
    """The lines of pyproject.toml that hold these requirements."""
    lines = [f"    {quoted(requirement)},\n" for requirement in requirements]
    return f"constraint-dependencies = [\n{''.join(lines)}]\n"


def quoted(requirement: str) -> str:
    """A TOML string; markers hold single quotes."""
    return '"' + requirement.replace('"', "'") + '"'


def main() -> None:
    """Resolve and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--hold", action="append", default=[], metavar="NAME==VERSION", help="keep at this version"
    )
    project = PYPROJECT.read_text()
    found = resolve(project, parser.parse_args().hold)
    PYPROJECT.write_text(BLOCK.sub(lambda _: block(found), project))
    print(f"{len(found)} versions in {PYPROJECT.name}")


if __name__ == "__main__":
    main()
