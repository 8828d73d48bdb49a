"""The folder of a supervisor for what its workers print; those of killed ones are removed."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from peftbench.system import processes
from peftbench.system.processes import Process

_PREFIX, _OWNER = "peftbench-", "owner.json"


class Scratch:
    """A folder for this process alone, in the system's folder for temporary files.

    Attributes:
        folder: removed by `close`, or by a later command where this process is killed.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        text = json.dumps(processes.current().to_json())
        (self.folder / _OWNER).write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove this user's folders whose process is known to be over."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            owner = Process.read(json.loads((folder / _OWNER).read_bytes()))
            if owner is not None and owner.is_alive() is False:
                shutil.rmtree(folder)
