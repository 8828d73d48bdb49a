"""Put generated tables into README.md, between the markers that name their files.

usage: uv run python scripts/readme.py [--check]
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- (\S+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with each marked part replaced by the file that it names."""
    return MARKED.sub(
        lambda found: f"{found[1]}\n{(ROOT / found[2]).read_text().strip()}\n\n{found[3]}", text
    )


def main() -> None:
    """Rewrite README.md, or with --check say whether that would change it."""
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = filled(before)
    if "--check" in sys.argv and before != after:
        sys.exit("README.md is not what the committed tables give; run scripts/readme.py")
    readme.write_text(after)


if __name__ == "__main__":
    main()
