"""The parts of a block that a method may name; a family's YAML file has the path of each."""

from typing import Any

from peftbench.core.errors import ConfigError

ROLES = (
    "attention",
    "query",
    "key",
    "value",
    "attn_out",
    "attn_norm",
    "ffn_in",
    "ffn_out",
    "ffn_norm",
)

#: Those that are one linear layer.
LINEARS = ("query", "key", "value", "attn_out", "ffn_in", "ffn_out")


def check_roles(
    name: str, roles: Any, allowed: tuple[str, ...] = ROLES, empty: bool = False
) -> None:
    """Refuse anything but a list of roles, each once.

    Args:
        name: of the setting.
        roles: its value.
        allowed: of `ROLES`, and other words that the setting takes.
        empty: whether the list may be.

    Raises:
        ConfigError: with the roles that it takes.
    """
    if not isinstance(roles, list | tuple) or not (roles or empty):
        raise ConfigError(f"{name} must list some of {', '.join(allowed)}, got {roles!r}")
    if twice := sorted({str(role) for role in roles if roles.count(role) > 1}):
        raise ConfigError(f"{name}: {', '.join(twice)} twice; once is enough")
    for role in roles:
        if role in allowed:
            continue
        if role in ROLES:
            raise ConfigError(
                f"{name}: {role} is not a linear layer, which this setting takes alone; choose of "
                f"{', '.join(allowed)}"
            )
        raise ConfigError(f"{name}: {role!r} is no role; the roles are {', '.join(allowed)}")
