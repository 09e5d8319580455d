"""The application that the verbs join, and what becomes of a fault in any of them.

Exit codes: 0 all that was asked is done; 1 some runs failed, and the message says how many, why and
how to try them again, or pictures were passed over, each named; 2 input that cannot be used, in one
sentence; 130 interrupted; 141 whoever read the output left before its end.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import io
import logging
import os
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from aptheory.cli.faults import users_fault
from aptheory.errors import InputError, shown_plainly

_KEEP = ("run", "sweep", "demo", "profile")
"""The verbs that keep what is finished and go on from there."""
_KEEP_WITH_OUT = ("map", "compare-norm")
"""The verbs that do where they have a folder."""
_ANYWHERE = ("-v", "--verbose", "-q", "--quiet")


_CLICK_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""The base of every mistake in a command's words, wherever typer keeps it."""


class Verbs(TyperGroup):
    """The verbs; a foreseeable fault in any of them is one line and exit code 2."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command; a mistake in its words is one line too, with the way to the help."""
        options: dict[str, Any] = {**extra, "standalone_mode": False}
        if not standalone_mode:
            return super().main(*args, **options)
        sys.stderr = lasting(sys.stderr)
        threading.excepthook = _told_with_verbose
        if sys.stdout is None:
            _fail("the standard output is closed, and the answer goes there; open it.")
        if isinstance(sys.stdout, io.TextIOWrapper):  # what it cannot say is spelt out
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, **options)
            if not sys.stdout.closed:
                sys.stdout.flush()
        except OSError as error:
            _fail_to_write(error)
        except _CLICK_ERROR as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
                sys.exit(2)
            context = getattr(error, "ctx", None)
            root = context.find_root().info_name if context else ""  # also "python -m aptheory"
            verbs = context.command_path.removeprefix(root or "").split() if context else []
            path = " ".join(["aptheory", *verbs])
            _fail(f"{error.format_message().rstrip('.')}; `{path} --help` says what there is.")
        except typer.Abort:  # Ctrl-C before a verb is at work
            print("\ninterrupted; the same command begins again", file=sys.stderr)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """How loud it is may be said before the verb or anywhere behind it."""
        loudness = [word for word in args if word in _ANYWHERE]
        return super().parse_args(ctx, loudness + [w for w in args if w not in _ANYWHERE])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(str(error))
        except OSError as error:
            _fail_to_write(error)
        except (_CLICK_ERROR, typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            _leave(goes_on=False)
        except BaseException as error:
            from aptheory.training.memory import out_of_memory

            if out_of_memory(error):
                _fail("there is not enough memory for this; give smaller numbers or batches.")
            if sys.stdout.closed:
                _fail("code that this command called closed the standard output; let it be.")
            if (fault := users_fault(error)) is None:
                raise
            logging.getLogger("aptheory").debug("The whole of it:", exc_info=error)  # -v
            _fail(fault)


def _leave(*, goes_on: bool) -> None:
    """End an interrupted command, and say whether the next one goes on from there."""
    words = "what is finished is kept, and the same command goes on from there"
    words = words if goes_on else "the same command begins again"
    print(f"\ninterrupted; {words}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(130)  # threads of the pool may still hold work: leave at once


def _told_with_verbose(fault: threading.ExceptHookArgs) -> None:
    """A thread of another package failed, a tracker's as its disk is full, and the call that waited
    for it has said so or will."""
    logging.getLogger("aptheory").debug("a thread failed:", exc_info=fault.exc_value)


class Verb(TyperCommand):
    """A verb; an option that takes one value and is given several is not half obeyed."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            keeps = self.name in _KEEP_WITH_OUT and ctx.params.get("out") is not None
            _leave(goes_on=self.name in _KEEP or keeps)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        values, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            value = values.get(option.name)
            each = value if isinstance(value, list | tuple) else [value]
            if option.param_type_name == "argument" and "" in each:
                ctx.fail(f"{option.name.upper()} is empty; give it a value")
            flag = vars(option).get("is_flag", False)
            once = option.param_type_name == "option" and not (option.multiple or flag)
            if once and self._empty(args, option.opts):
                ctx.fail(f"{option.opts[0]} is empty; give it a value or leave it out")
            if once and given.count(option) > 1:
                ctx.fail(
                    f"{option.opts[0]} is given {given.count(option)} times and takes one value"
                )
        return super().parse_args(ctx, args)

    @staticmethod
    def _empty(args: list[str], names: list[str]) -> bool:
        """Whether an option is given an empty text, as by a variable of the shell without one."""
        before = ["", *args]
        alone = any(a in names and not b for a, b in zip(before, args, strict=False))
        return alone or any(f"{name}=" in args for name in names)


app = typer.Typer(
    cls=Verbs,
    help="Where in a frozen vision network does a learned perturbation do its work?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Terminal(logging.Handler):
    """What the library says on its way, on the error stream and above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(shown_plainly(self.format(record), lines=True), file=sys.stderr)


_terminal = Terminal()


def _version(wanted: bool) -> bool:
    if wanted:
        from aptheory.version import __version__

        typer.echo(f"aptheory {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def command_line(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="say more")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="say only warnings")] = False,
) -> None:
    """Where in a frozen vision network does a learned perturbation do its work?"""
    ours = logging.getLogger("aptheory")
    if _terminal not in ours.handlers:
        ours.addHandler(_terminal)
    ours.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a verb of the command line; its groups of options become options."""
    app.command(cls=Verb)(with_groups(function))
    return function


def with_groups(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` with each parameter that is a dataclass taken apart into one for each field.

    So a group of options is written down once, and an option that joins it joins every verb.
    """
    signature = inspect.signature(function, eval_str=True)
    plain: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in signature.parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = typing.cast("type", parameter.annotation)
            hints = typing.get_type_hints(groups[name], include_extras=True)
            plain += [_parameter(f, hints[f.name]) for f in fields(groups[name])]
        else:
            plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        function(**values)

    call.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]  # typer reads it
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in plain}
    del call.__wrapped__
    return call


def _parameter(field: Field[Any], hint: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=hint)


def collect_rarely() -> None:
    """Let Python look for circles of garbage after 20,000 new objects, not after 700.

    A network and its copies are tens of thousands of lasting objects without circles. To walk
    through them again and again took half of the time in which a prompt is attached.
    """
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


def main() -> None:
    """Run the command line."""
    collect_rarely()
    warnings.showwarning = say_warning
    app()


def say_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning is a line too, without the place in the code, and is said once."""
    if str(message) not in _said:
        _said.add(str(message))
        _terminal.emit(logging.makeLogRecord({"msg": f"warning: {message}"}))


_said: set[str] = set()


@functools.cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w")  # until the process ends


class _Lasting:
    """An error stream whose writing may fail, on a full disk, without ending the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def lasting(stream: TextIO | None) -> TextIO:
    """An error stream for the whole command: one that the caller closed leads nowhere, here and in
    the worker processes, and one that cannot be written is written no more."""
    if stream is None:
        try:
            os.fstat(2)
        except OSError:  # print would turn to the standard output, and a worker would not start
            os.dup2(_nowhere().fileno(), 2)
        return _nowhere()
    return stream if isinstance(stream, _Lasting) else typing.cast("TextIO", _Lasting(stream))


def _fail_to_write(error: OSError) -> None:
    """End with the machine's own reason; what is not the machine's fault goes on as it is."""
    if error.errno is None:
        raise error
    if isinstance(error, BrokenPipeError):  # the reader, `head` perhaps, has what it wanted
        sys.stdout = _nowhere()  # Python flushes once more at its end
        sys.exit(141)  # what a program that the signal SIGPIPE ends answers
    place = error.filename or "a file or the standard output"
    _fail(f"{place}: {error.strerror}; check the path and the disk.")


def echo(text: object, *, err: bool = False) -> None:
    """Print lines as `shown_plainly` gives them."""
    typer.echo(shown_plainly(str(text), lines=True), err=err)


def _fail(sentence: str) -> None:
    print(f"aptheory: {shown_plainly(sentence)}", file=sys.stderr)
    sys.exit(2)
