"""Revisions of what decides a score: raised when a correction makes runs score differently.

A revision above 1 is part of the keys of the runs (of the evaluations, for suites) that it
concerns, so that records from before it are not taken for records after it, and all others keep
their keys. `PROTOCOL` is in every key, and stays as it is for a correction of one method.
"""

#: Of methods, by the name of their class.
METHODS: dict[str, int] = {}

#: Of losses, by the kind of task.
LOSSES: dict[str, int] = {}

#: Of suites, by the name of their class.
SUITES: dict[str, int] = {}
