"""Commands of a scheduler on the path of a test: each calls one script with its own name."""

import os
import sys


def put_on_path(folder, monkeypatch, script, names, variable):
    """Put commands into `folder/bin` and that on the path; the variable names the folder."""
    (folder / "bin").mkdir(parents=True)
    for name in names:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/bash\nexec {sys.executable} -S -E {script} {name} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv(variable, str(folder))
