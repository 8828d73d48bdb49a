"""A home folder for users who have none: containers and clusters run unknown user numbers.

Without HOME and without an entry in passwd, `~` means nothing: libraries fail when they look for
their caches, or make a folder that is called `~`.
"""

import os
import pwd
import stat
import sys
import tempfile
from pathlib import Path

from peftbench.core.errors import ConfigError


def ensure_home() -> None:
    """Let HOME name a folder, for this process and those that it starts; say so if it is made up.

    Raises:
        ConfigError: if there is none and none can be made.
    """
    if os.environ.get("HOME"):
        return
    user = os.getuid()
    try:
        if pwd.getpwuid(user).pw_dir:
            os.environ.pop("HOME", None)  # an empty one would hide it
            return
    except KeyError:
        pass
    place = _own_folder(user)
    os.environ["HOME"] = str(place)
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = str(user)  # getpass would look into passwd
    print(
        f"note: user {user} has no home folder (no HOME, no entry in passwd): caches are kept in "
        f"{place}; set HOME to keep them elsewhere",
        file=sys.stderr,
    )


def _own_folder(user: int) -> Path:
    try:
        place = Path(tempfile.gettempdir()) / f"peftbench-home-{user}"
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise ConfigError(
            f"user {user} has no home folder (no HOME, no entry in passwd), and none can be made "
            f"({error.strerror}): set HOME to a folder that can be written to"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise ConfigError(
            f"user {user} has no home folder (no HOME, no entry in passwd), and {place} is "
            "somebody else's: set HOME to a folder of your own"
        )
    return place
