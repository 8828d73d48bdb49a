"""Pin the resolved set: write exact versions into pyproject.toml's constraint-dependencies.

uv resolves the newest versions that `dependencies` and `--hold` allow, on every Python and platform
that the project supports; what it finds replaces the list in pyproject.toml. Run the tests before
you commit it: the list says what was tested. `--add` keeps what is pinned and what is installed by
uv.lock, and pins what a new dependency brings.

    uv run --no-sync python scripts/pin_versions.py --hold 'transformers==5.23.0'
    uv run --no-sync python scripts/pin_versions.py --add
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
BLOCK = re.compile(r"^constraint-dependencies = \[\n(?:    .*\n)*\]\n", re.MULTILINE)


def resolve(project: str, lock: Path | None = None) -> list[str]:
    """Requirements with `==` and markers, sorted, of the newest set that the project allows.

    Args:
        project: the text of a pyproject.toml.
        lock: whose versions are preferred to newer ones.
    """
    uv = shutil.which("uv") or str(Path(".uv/bin/uv").resolve())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(project)
        if lock is not None and lock.exists():
            shutil.copy(lock, folder)
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
    parser.add_argument("--add", action="store_true", help="keep all versions, pin what is not")
    asked = parser.parse_args()
    project = PYPROJECT.read_text()
    if asked.add:
        found = resolve(project, PYPROJECT.with_name("uv.lock"))
    else:
        found = resolve(BLOCK.sub(block(asked.hold), project))
    PYPROJECT.write_text(BLOCK.sub(lambda _: block(found), project))
    print(f"{len(found)} versions in {PYPROJECT.name}")


if __name__ == "__main__":
    main()
