"""The root command: commands in sections, and errors as one clear line."""

import errno
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from peftbench.config import old_names
from peftbench.core.errors import ConfigError, OldName, RecordError, system_reason
from peftbench.core.text import did_you_mean
from peftbench.system import terminal

#: The sections of `peftbench --help`, in the order in which people need them.
SECTIONS = {
    "Experiments": ("list", "plan", "run", "tune", "evaluate", "status"),
    "Results": ("report", "show", "export", "predict", "merge", "rm", "gc"),
    "Decisions": ("pilot", "advise", "gate"),
    "Cluster": ("submit", "collect", "cancel", "prefetch"),
    "Setup": ("doctor", "completion"),
}

#: Exit code where the reader of the output has left, as a shell reports SIGPIPE.
CLOSED = 141

#: Where a context keeps the words of the command line.
_ARGUMENTS = "peftbench.arguments"


class Verbs(click.Group):
    """Commands in sections; bad input ends with one clear message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of the sections."""
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section; no summary is cut."""
        width = max(map(len, self.commands))
        for section, names in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(name.ljust(width), self.commands[name].short_help or "") for name in names]
                )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line, also as it was written in the release before."""
        warnings.showwarning = _show_warning
        if args[:1] in (["help"], ["version"]):  # as other programs have them
            args = [*args[1:], f"--{args[0]}"]
        args = old_names.current_arguments(args)
        ctx.meta[_ARGUMENTS] = args = list(args)
        try:
            return super().parse_args(ctx, [*args])
        except click.NoSuchOption as error:
            raise self._placed(error, args) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; of an unknown one say what was probably meant."""
        if not self.get_command(ctx, args[0]):
            near = did_you_mean(args[0], self.commands)
            ctx.fail(f"No such command {args[0]!r}; {near}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command on any terminal; what the system does not do ends with one line."""
        terminal.prepare()
        try:
            return super().main(*args, **more)
        except terminal.OutputError as error:
            terminal.discard_output()
            if error.closed:
                sys.exit(CLOSED)
            click.echo(f"peftbench: standard output takes no more: {error.strerror}", err=True)
            sys.exit(2)
        except OSError as error:
            click.echo(f"peftbench: {_system_line(error)}", err=True)
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn user errors into a message and exit code 2, an interruption into 130."""
        try:
            _check_working_folder()
            return super().invoke(ctx)
        except (ConfigError, RecordError) as error:
            click.echo(f"peftbench: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:  # click would end with 1, which is an answer of some commands
            click.echo("peftbench: interrupted", err=True)
            ctx.exit(130)
        except click.NoSuchOption as error:
            raise self._placed(error, ctx.meta[_ARGUMENTS]) from None

    def _placed(self, error: click.NoSuchOption, args: list[str]) -> click.NoSuchOption:
        """The error with what to write instead, for an option that is known in another form.

        Args:
            error: of the parser, which knows its own command only; it is changed.
            args: of the command line.
        """
        from peftbench.config import override_parsing  # Hydra, which --help does not wait for

        word = next((arg for arg in args if arg.startswith(error.option_name)), "")
        key, _, value = word.lstrip("-").partition("=")
        command, behind = error.ctx.command if error.ctx else self, ""
        if command is self:  # the option stands in front of the command
            verb = next((arg for arg in args if arg in self.commands), "plan")
            command, behind = self.commands[verb], f" behind the command: peftbench {verb} …"
        if any(f"--{key}" in param.opts for param in command.params):
            instead = f"--{key}"
        elif override_parsing.is_key(key) and any(
            one.name == "overrides" for one in command.params
        ):
            after = args[args.index(word) + 1 :]
            instead = f"{key}={value or next(iter(after), 'VALUE')}"
        else:
            return error
        told = f"{error.message.rstrip('.')}; write {instead}{behind and f'{behind} {instead}'}"
        return click.NoSuchOption(error.option_name, told, ctx=error.ctx)


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working folder is gone ({error.strerror}); cd to one that exists"
        ) from error


def _system_line(error: OSError) -> str:
    """What the system did not do, and what to do about it."""
    todo = {
        errno.EACCES: "let your user read and write there, or name another folder",
        errno.EPERM: "let your user read and write there, or name another folder",
        errno.ENOSPC: "free some room, or name another folder",
        errno.EDQUOT: "free some room, or name another folder",
        errno.EROFS: "the file system is read-only: name another folder",
        errno.ENOTDIR: "a part of the path is a file: name another folder",
        errno.ENOENT: "it was removed, or is spelled otherwise",
        errno.EMFILE: "too many files are open: raise `ulimit -n`, or use fewer --workers",
    }.get(error.errno or 0)
    return system_reason(error) + (f"; {todo}" if todo else "")


def _show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
    """A line for a person; warnings of libraries as ever, but for what they say to each other."""
    if issubclass(category, OldName):
        click.echo(f"peftbench: note: {message}", err=True)
    elif not issubclass(category, FutureWarning):
        _SHOW_WARNING(message, category, *place, **more)


_SHOW_WARNING = warnings.showwarning
