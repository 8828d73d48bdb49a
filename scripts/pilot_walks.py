"""Three pilots on samples of GLUE, and what docs/pilot.md shows of them.

Reviews: 500 sentences of SST-2. Pairs: 500 of MRPC. Shuffled: the reviews with their labels in
another order, of which nothing can be learnt. The samples and all records go to the folder of
`--to`; docs/pilot.md gets the answer, the table and a picture or two of each, and no text of GLUE.
What is finished is not done again. Shuffled labels that do not end in no-go are an error.

usage: uv run python scripts/pilot_walks.py --data GLUE_FOLDER --to FOLDER
           [--only reviews]   one of the walks; FOLDER is outside of the repository, which holds no
           text of GLUE
           [--page COPY.md --rows 200 -- model=tiny --folds 2]   a trial: on a copy of the page with
           pictures in img/ beside it, and further words for the pilot
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

from peftbench.pilot import page
from peftbench.pilot.decision import NO_GO
from peftbench.pilot.outcome import PilotOutcome

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/pilot.md"

#: Bytes of the pictures of a walk, at most: all committed files have to stay small.
MOST = 100_000

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


def carry_out(path: Path, walk: str, folder: Path, more: list[str]) -> None:
    """Run the pilot of a walk, or continue it."""
    _, texts, least = WALKS[walk]
    words = [str(path), f"task.texts=[{','.join(texts)}]", "--at-least", str(least), *more]
    line = [sys.executable, "-m", "peftbench", "pilot", *words, "--results", str(folder)]
    if code := subprocess.run(line, check=False).returncode:
        sys.exit(code)


def shown(walk: str, made: PilotOutcome, pictures: Path) -> str:
    """What the page has of a walk; its pictures are written to a folder beside it."""
    parts = [
        " ".join(page.sentences(made)[:3]),
        page.brief(made)[0].markdown().partition("\n\n")[2],
    ]
    figures = {
        f"pilot_{walk}.png": page.scores_figure(made),
        f"pilot_{walk}_curve.png": page.curve_figure(made),
    }
    size = 0
    pictures.mkdir(exist_ok=True)
    for name, figure in figures.items():
        if figure is not None:
            body = figure.file("png")
            size += len(body)
            (pictures / name).write_bytes(body)
            parts.append(f"![{figure.caption}]({pictures.name}/{name})")
    if size > MOST:
        sys.exit(f"the pictures of {walk} have {size:,} bytes, more than {MOST:,}")
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
    parser.add_argument("--page", type=Path, default=PAGE, help="that is filled")
    parser.add_argument("words", nargs="*", help="of all pilots, such as model=roberta_base")
    given = parser.parse_args()
    if not (given.data / "sst2").is_dir():
        parser.error(f"--data {given.data}: no folder sst2 in it; name a folder with GLUE")
    if given.to.resolve().is_relative_to(ROOT):
        parser.error("--to: samples hold texts of GLUE; name a folder outside of the repository")
    for walk in [given.only] if given.only else WALKS:
        folder = given.to / walk
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{walk}.csv"
        sample(given.data, walk, given.rows).to_csv(path, index=False)
        carry_out(path, walk, folder, given.words)
        made = PilotOutcome.from_json(json.loads((folder / "pilot.json").read_text()))
        marked = rf"(<!-- walk of {walk} -->\n).*?(<!-- end of walk -->)"
        before = given.page.read_text()
        part = shown(walk, made, given.page.parent / "img").replace("\\", r"\\")
        after, count = re.subn(marked, rf"\1\n{part}\n\n\2", before, flags=re.DOTALL)
        if not count:
            sys.exit(f"{given.page} has no place for the walk of {walk}")
        given.page.write_text(after)
        if walk == "shuffled" and made.answer != NO_GO:
            sys.exit(f"shuffled labels: the answer is {made.answer}, and has to be {NO_GO}")


if __name__ == "__main__":
    main()
