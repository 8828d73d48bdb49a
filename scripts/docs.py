"""Generate the parts of README.md and docs/ that list what the code and the results hold.

A marker names what stands in its place: a function of this script, or a committed file.

usage: uv run python scripts/docs.py [--check]
"""

import copy
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from peftbench.cli.main import main as command
from peftbench.cli.options import OVERRIDES
from peftbench.config import catalog
from peftbench.core.text import listed_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCORES = ROOT / "results/tuned/methods/reports/scores.md"
REFERENCE = ROOT / "results/reference/reports/scores.md"
#: Rows of the chosen rates' scores that the README shows; the file has all.
HEADLINE = ("constant prediction", "full", "adapter", "lora", "bitfit", "ia3")
#: Rows of the reference scores that a page shows, and columns that it leaves out; the file has all.
SHOWN = ("constant prediction", "full", "adapter", "lora", "bitfit", "head")
HIDDEN = " 1,000 "
CLAIMS = ROOT / "results/tuned/methods/reports/claims.md"
#: Claims whose verdicts a page shows, by paper, up to the column of the deciding setting.
SHOWN_CLAIMS = (
    ("doering2024", "bitfit_over_sizes"),
    ("sparse_adapter2022", "snip_40_percent_not_worse"),
    ("unipelt2022", "keeps_up_with_its_parts"),
)
_VERDICT = 5
#: A site holds only files of its folder: pictures of reports that pages show.
PICTURES = {
    ROOT / "docs/img/seeds.png": ROOT / "results/tuned/methods/reports/seeds.png",
    ROOT / "docs/img/tuning.png": ROOT / "results/tuned/methods/reports/tuning.png",
    ROOT / "docs/img/sizes.png": ROOT / "results/tuned/doering2024/reports/sizes.png",
    ROOT / "docs/img/anytime_budgets.png": (
        ROOT / "results/tuned/doering2024_time/reports/anytime_budgets.png"
    ),
}
#: Groups whose files are shown whole, in the order in which readers look them up.
GROUPS = (
    *("train", "budget", "checkpoint_selection", "method", "task", "model", "prompt"),
    *("augmentation", "suite", "shift_dataset", "cluster"),
)
#: Methods that select weights on training batches, with a selection of the same size without them.
SELECTING = {
    "sparse_adapter": ("method.score=random",),
    "robust_partial": ("method.choose=manual", "method.which={third}"),
}

_MARKED = re.compile(r"(<!-- (\S+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return the text with each marked part replaced by what its marker names."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{_content(found[2])}\n\n{found[3]}", text)


def _content(name: str) -> str:
    generated = GENERATED.get(name)
    return (generated() if generated else (ROOT / name).read_text()).strip()


def cli() -> str:
    """Return the help of every command, without the section on overrides that several share."""
    every = list(_commands(command, "peftbench"))
    shared = [f"`{t.split()[-1]}`" for t, one in every if (one.epilog or "").startswith(OVERRIDES)]
    about = (
        f"The help of {listed_names(shared, len(shared))} also has a section on overrides, which "
        "is left out here: see [overrides](overrides.md)."
    )
    parts = [textwrap.fill(about, 100, break_on_hyphens=False)]
    for title, one in every:
        heading = "##" if title.count(" ") < 2 else "###"
        parts.append(f"{heading} {title}\n\n```text\n{_help(one, title)}\n```")
    return "\n\n".join(parts)


def _commands(one: click.Command, title: str) -> Iterator[tuple[str, click.Command]]:
    yield title, one
    if isinstance(one, click.Group):
        for name in one.list_commands(click.Context(one)):
            yield from _commands(one.commands[name], f"{title} {name}")


def _help(one: click.Command, title: str) -> str:
    """Return help of 80 columns, without the overrides, which have a page of their own."""
    shown = copy.copy(one)
    shown.epilog = (one.epilog or "").removeprefix(OVERRIDES)
    settings = {**command.context_settings, "terminal_width": 80, "max_content_width": 80}
    with click.Context(shown, info_name=title, **settings) as context:
        return "\n".join(line.rstrip() for line in shown.get_help(context).splitlines())


def configuration() -> str:
    """Return the packaged files of each group, which hold every key with its default."""
    assert set(GROUPS) >= set(catalog.GROUPS)
    folder = catalog.packaged()
    links = ", ".join(f"[{group}](#{group})" for group in (*GROUPS, "sweep", "paper"))
    parts = [f"Groups: {links}.", f"## run.yaml\n\n{_yaml(folder / 'run.yaml')}"]
    for group in GROUPS:
        parts.append(f"## {group}")
        for path in sorted((folder / group).glob("*.yaml")):
            title = f"{group}={path.stem}"
            if path.stem.startswith("_"):
                title = f"{group}/{path.name} (included by others)"
            parts.append(f"### {title}\n\n{_yaml(path)}")
    for group in ("sweep", "paper"):
        offered = catalog.options(group, (folder,))
        lines = [f"| `{group}={name}` | {catalog.about(path)} |" for name, path in offered.items()]
        parts.append(f"## {group}\n\n| option | purpose |\n| --- | --- |\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _yaml(path: Path) -> str:
    return f"```yaml\n{path.read_text().strip()}\n```"


def methods() -> str:
    """Return a table of all methods with their trained parameters beside the head."""
    from peftbench.config.sweep import plan
    from peftbench.methods.base import build_method
    from peftbench.models import pretrained
    from peftbench.models.adapted_model import AdaptedModel
    from peftbench.models.backbone import Backbone

    offered = catalog.options("method", (catalog.packaged(),))
    counts: dict[str, list[str]] = {name: [] for name in offered}
    for model in ("bert_base", "minilm"):
        config = plan(f"model={model}").runs[0].model
        skeletons = {
            device: Backbone(config, device, pretrained.skeleton(config, device))
            for device in ("meta", "cpu")
        }
        for name in offered:
            selecting = SELECTING.get(name, ())
            adapted = AdaptedModel(skeletons["cpu" if selecting else "meta"], classes=2, seed=0)
            third = list(range(len(adapted.blocks) // 3))
            words = [word.format(third=third) for word in selecting]
            method = build_method(plan(f"method={name}", *words).runs[0].method)
            method.insert(adapted)
            if selecting:
                method.on_train_begin(adapted, iter(()))
            counts[name].append(f"{adapted.counts()['trained']:,}")
    lines = [
        "| `method=` | what trains | paper | file | BERT-base | MiniLM |",
        "| --- | --- | --- | --- | ---: | ---: |",
    ]
    for name, path in offered.items():
        paper = catalog.said(path, "paper")
        cells = (catalog.about(path), f"arXiv {paper}" if paper else "", f"`{_file(path).name}`")
        lines.append(f"| {' | '.join((f'`{name}`', *cells, *counts[name]))} |")
    return "\n".join(lines)


def method_list() -> str:
    """Return a line for each method."""
    offered = catalog.options("method", (catalog.packaged(),))
    return "\n".join(f"- `{name}` – {catalog.about(path)}" for name, path in offered.items())


def suites() -> str:
    """Return a table of all suites: what they ask and what comes out."""
    lines = ["| `suite=` | Question | What comes out | File |", "| --- | --- | --- | --- |"]
    for name, path in catalog.options("suite", (catalog.packaged(),)).items():
        asked = (catalog.said(path, key) or catalog.about(path) for key in ("question", "outcome"))
        lines.append(f"| {' | '.join((f'`{name}`', *asked, f'`{_file(path)}`'))} |")
    return "\n".join(lines)


def _file(path: Path) -> Path:
    """Return the file of the class that an option's yaml names."""
    module = str(catalog.said(path, "_target_")).rpartition(".")[0]
    return Path(module.replace(".", "/") + ".py")


def scores() -> str:
    """Return the scores of the methods with chosen learning rates, and their notes in short."""
    return _scores(SCORES, HEADLINE)


def claims() -> str:
    """Return a few verdicts of the claims, on runs with chosen learning rates."""
    table = CLAIMS.read_text().split("\n\n")[1]
    head, _, *rows = [line.strip("|").split("|")[:_VERDICT] for line in table.splitlines()]
    found = {tuple(cell.strip() for cell in row[:2]): row for row in rows}
    shown = [head, ["---"] * _VERDICT, *(found[name] for name in SHOWN_CLAIMS)]
    return "\n".join(f"| {' | '.join(cell.strip() for cell in row)} |" for row in shown)


def reference_scores() -> str:
    """Return the reference scores on all training data, and their notes in short."""
    return _scores(REFERENCE, SHOWN, HIDDEN)


def _scores(path: Path, shown: Sequence[str], hidden: str | None = None) -> str:
    table, *notes = [part for part in path.read_text().split("\n\n") if not part.startswith("#")]
    lines = [line.split("|") for line in table.splitlines()]
    kept = [n for n, head in enumerate(lines[0]) if hidden is None or hidden not in head]
    head, rule, *rows = ["|".join(line[n] for n in kept) for line in lines]
    by_name = {row.split("|")[1].strip(): row for row in rows}
    told = [note.split(". ")[0].rstrip(".") + "." for note in notes if note[0] in "†‡§"]
    return "\n\n".join(["\n".join([head, rule, *(by_name[name] for name in shown)]), *told])


GENERATED: dict[str, Callable[[], str]] = {
    "claims": claims,
    "cli": cli,
    "configuration": configuration,
    "method_list": method_list,
    "methods": methods,
    "reference_scores": reference_scores,
    "scores": scores,
    "suites": suites,
}


def main() -> None:
    """Rewrite what differs, or with --check name it and fail."""
    stale = []
    for path in PAGES:
        before = path.read_text()
        after = filled(before)
        if before != after:
            stale.append((path, after.encode()))
    for copied, picture in PICTURES.items():
        if not copied.exists() or copied.read_bytes() != picture.read_bytes():
            stale.append((copied, picture.read_bytes()))
    names = ", ".join(str(path.relative_to(ROOT)) for path, _ in stale)
    if "--check" in sys.argv and stale:
        sys.exit(f"not what code and results give: {names}; run scripts/docs.py")
    for path, content in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
