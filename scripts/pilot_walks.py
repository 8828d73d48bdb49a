"""Three pilots on samples of GLUE, and what docs/pilot.md shows of them.

Reviews: 500 sentences of SST-2. Pairs: 500 of MRPC. Shuffled: the reviews with their labels in
another order, of which nothing can be learnt. The samples and all records go to the folder of
`--to`; docs/pilot.md gets the answer, the table and a picture of each, and no text of GLUE.

usage: uv run python scripts/pilot_walks.py --data GLUE_FOLDER --to FOLDER [--rows 500]
           [--only reviews]   one of the walks; FOLDER is outside of the repository, which holds no
           text of GLUE
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

from peftbench.pilot import page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/pilot.md"

#: By walk: the data set, its columns of texts, and the least score.
WALKS = {
    "reviews": ("sst2", ["sentence"], 0.85),
    "pairs": ("mrpc", ["sentence1", "sentence2"], 0.8),
    "shuffled": ("sst2", ["sentence"], 0.85),
}

NAMES = {"sst2": ("negative", "positive"), "mrpc": ("different", "same")}


def sample(data: Path, walk: str, rows: int) -> pd.DataFrame:
    """Rows of the training split of a walk's data set, the same ones for each call."""
    task, texts, _ = WALKS[walk]
    found = pd.concat(map(pd.read_parquet, sorted((data / task).glob("train-*.parquet"))))
    drawn = found.sample(rows, random_state=0)[[*texts, "label"]].reset_index(drop=True)
    drawn["label"] = drawn["label"].map(dict(enumerate(NAMES[task])))
    if walk == "shuffled":
        drawn["label"] = drawn["label"].sample(frac=1, random_state=1).to_numpy()
    return drawn


def carry_out(path: Path, walk: str, folder: Path) -> None:
    """Run the pilot of a walk, or continue it."""
    _, texts, least = WALKS[walk]
    words = [str(path), f"task.texts=[{','.join(texts)}]", "--at-least", str(least)]
    line = [sys.executable, "-m", "peftbench", "pilot", *words, "--results", str(folder)]
    subprocess.run(line, check=True)


def shown(walk: str, folder: Path) -> str:
    """What the page has of a walk; its picture is written to docs/img/."""
    made = json.loads((folder / "pilot.json").read_text())
    picture = ROOT / f"docs/img/pilot_{walk}.png"
    picture.write_bytes(page.scores_figure(made).file("png"))
    parts = [
        " ".join(page.sentences(made)[:3]),
        page.brief(made)[0].markdown().partition("\n\n")[2],
    ]
    parts.append(f"![Cross-validated scores of the pilot](img/{picture.name})")
    if (curve := page.curve_figure(made)) is not None:
        other = ROOT / f"docs/img/pilot_{walk}_curve.png"
        other.write_bytes(curve.file("png"))
        parts.append(f"![Scores by number of labels](img/{other.name})")
    return "\n\n".join(parts)


def main() -> None:
    """Draw samples, run pilots, fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="a GLUE folder in the hub's layout"
    )
    parser.add_argument("--to", type=Path, required=True, help="for samples and records")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--only", choices=WALKS)
    given = parser.parse_args()
    for walk in [given.only] if given.only else WALKS:
        folder = given.to / walk
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{walk}.csv"
        sample(given.data, walk, given.rows).to_csv(path, index=False)
        carry_out(path, walk, folder)
        marked = rf"(<!-- walk of {walk} -->\n).*?(<!-- end of walk -->)"
        before, part = DOCS.read_text(), shown(walk, folder).replace("\\", r"\\")
        DOCS.write_text(re.sub(marked, rf"\1\n{part}\n\n\2", before, flags=re.DOTALL))


if __name__ == "__main__":
    main()
