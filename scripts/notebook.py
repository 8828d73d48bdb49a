"""Make docs/notebook.ipynb: the page on Python as a notebook, with its outputs.

usage: uv run --group notebook python scripts/notebook.py
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
CELLS = (
    (
        "markdown",
        "# Read a results folder\n\nThe records are those of `results/tuned/doering2024` in the "
        "repository; start the notebook at its top. [Python](python-api.md) explains the names.",
    ),
    (
        "code",
        'import peftbench\n\nresults = peftbench.Results("results/tuned/doering2024")\nresults',
    ),
    ("markdown", "A table as `peftbench report table` makes it, and the same as numbers:"),
    ("code", 'results.table(rows="method", columns="task", where="size=3668,5749,8551")'),
    (
        "code",
        'results.table(rows="method", columns="size", where="task=mrpc size=3668").frame().head()',
    ),
    (
        "markdown",
        "Paired comparisons with full fine-tuning, over the seeds and examples that both share:",
    ),
    (
        "code",
        "pairs = results.compare()\n"
        'pairs[["task", "row", "seeds", "difference", "low", "high", "verdict"]].head(6)',
    ),
    ("markdown", "One row a record, for pandas:"),
    (
        "code",
        'frame = results.frame("run.method.name", "run.task.name", "run.size", "seconds.train")\n'
        'frame.groupby("run.method.name", observed=True)["seconds.train"].median().round(1)',
    ),
    ("markdown", "What one run got wrong, most confident errors first:"),
    ("code", "key = results.keys()[0]\nresults.errors(key).head()"),
    ("markdown", "A picture of the report:"),
    ("code", 'picture = results.plot("seeds")[0]\nprint(picture.caption)\npicture'),
)


def main() -> None:
    """Execute the cells at the top of the repository, and write them with what they gave."""
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [make[kind](text) for kind, text in CELLS]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    nbformat.write(notebook, ROOT / "docs" / "notebook.ipynb")


if __name__ == "__main__":
    main()
