"""Which tuners of the installed peft library run on which families: found out by running them.

Each pair is inserted into a tiny model of the family, trained for three steps, and has to change
what it trains and nothing of the backbone. `peftbench list peft` shows the result. With families
named, the rows of the others stay, if they are of the installed versions.

usage: uv run python scripts/peft_matrix.py [FAMILY ...]
"""

import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))
import tiny  # noqa: E402 - the tests' tiny models are the families' own yaml

from peftbench.methods.base import build_method  # noqa: E402
from peftbench.methods.peft import offered  # noqa: E402
from peftbench.models.adapted_model import AdaptedModel  # noqa: E402

#: Arguments for types whose defaults are too large for a model of width 32.
SMALL = {
    "C3A": ["method.config.block_size=8"],
    "MISS": ["method.config.r=4"],
    "ROAD": ["method.config.group_size=8"],
    "SHIRA": ["method.config.r=2"],
    "VBLORA": ["method.config.vector_length=16", "method.config.num_vectors=16"],
    "WAVEFT": ["method.config.n_frequency=64"],
}
OUT = ROOT / "peftbench/methods/peft_support.json"


def tried(kind: str, family: str) -> str:
    """Empty if the pair works, else the reason."""
    run = tiny.one_run("method=peft", f"method.type={kind}", *SMALL.get(kind, []))
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    before = {n: t.clone() for n, t in tiny.backbone(family).module.state_dict().items()}
    torch.manual_seed(0)
    try:
        method = build_method(run.method)
        method.insert(model)
        start = {n: p.detach().clone() for n, p in model.trained().items()}
        tiny.fit(model, method, tiny.batch(tiny.tokens(), family), steps=3, lr=1e-2)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    inner = [n for n in start if not model.in_head(n)]
    if not inner:
        return "nothing but the head trains"
    if all(torch.equal(model.trained()[n], start[n]) for n in inner):
        return "what was inserted does not train"
    after = tiny.backbone(family).module.state_dict()
    if any(not torch.equal(after[n], tensor) for n, tensor in before.items()):
        raise SystemExit(f"{kind} on {family} wrote to the shared backbone: a bug of ours")
    return ""


def main() -> None:
    """Write peftbench/methods/peft_support.json."""
    warnings.simplefilter("ignore")
    families = sys.argv[1:] or tiny.FAMILIES
    found = {kind: {f: tried(kind, f) for f in families} for kind in offered()}
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    if sys.argv[1:]:
        earlier = json.loads(OUT.read_text())
        if earlier["versions"] != versions:
            raise SystemExit(f"{OUT.name} is of {earlier['versions']}: run all families")
        rows = {kind: earlier["reasons"][kind] | row for kind, row in found.items()}
        found = {kind: dict(sorted(row.items())) for kind, row in rows.items()}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"versions": versions, "reasons": found}, indent=1) + "\n")
    for kind, row in found.items():
        print(kind, *("yes" if not reason else "no" for reason in row.values()))


if __name__ == "__main__":
    main()
