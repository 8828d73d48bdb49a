"""Configuration folders of a user's own."""

from pathlib import Path

WRAPPER = """_target_: peftbench.methods.mc_dropout.MCDropout
name: NAME
about: a user's own wrapper
defaults:
  - /method@base_method: HOST
  - _self_
samples: 3
recipe: ${.base_method.recipe}
"""


def with_wrappers(folder: Path, hosts: dict[str, str]) -> Path:
    """Write methods around others, by their names; one around `???` leaves the other open."""
    (folder / "method").mkdir(parents=True)
    for name, host in hosts.items():
        text = WRAPPER.replace("NAME", name).replace("HOST", host)
        (folder / "method" / f"{name}.yaml").write_text(text)
    return folder
