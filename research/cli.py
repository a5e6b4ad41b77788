"""Flags to a config, with every mistake as one line. Shared by the programs of this package; imports no jax."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from research.config import durations, fields, files, recorded, synonyms
from research.errors import InputError, nearest
from research.parallel import cpu

CLOSED_PIPE = 141  # the exit code of a program that a closed pipe ends: 128 + SIGPIPE
OWN_CONFIG = ("predict", "evaluate", "export", "plan")  # modes that need no --config where --workdir names a run
_PARSING = (flags.Error, AttributeError, OSError, TypeError, KeyError, IndexError, ValueError)


def run(main: Callable[[list[str]], None]) -> None:
    """Run `main` after the flags are parsed. Bad input ends in one line on standard error and exit code 2.

    What is written is UTF-8, whatever the locale. Where a reader of standard output stops early (`| head`), the program ends quietly.
    """
    cpu.prepare()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            app.run(main, flags_parser=parse)
        finally:
            sys.stdout.flush()
    except InputError as error:
        sys.exit(_end(f"error: {error}", 2))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes standard output once more at its end
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if not error.filename:
            raise
        sys.exit(_end(f"error: {error.filename}: {error.strerror}", 2))
    except KeyboardInterrupt:
        sys.exit(_end("stopped; the same command goes on from the latest checkpoint", 130))


def _end(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a flag called `config`, where the program has one, ends up as a ConfigDict in which each duration has one unit.

    `--help` prints the program's own flags. Raises InputError on anything that is not understood.
    """
    if {"--help", "-help", "-h"} & set(argv):
        print(sys.modules["__main__"].__doc__, flags.FLAGS.main_module_help(), sep="\n")
        sys.exit(0)
    argv = [argv[0], *_of_base(arranged(argv[1:]))]
    try:
        with _program_arguments(argv):
            rest = flags.FLAGS(argv)
        listed = "list" in flags.FLAGS and flags.FLAGS["list"].value
        wanted = "config" in flags.FLAGS and not listed
        config, is_file = (flags.FLAGS["config"].value, flags.FLAGS["config"].flag_type() == "config object") if wanted else (None, False)
        if is_file and config is not None and not isinstance(config, ConfigDict):
            raise OSError("a config file that cannot be read is left for later by the flags library")
    except _PARSING as error:
        reason = _reason(argv, error)
        if reason is None:
            raise
        raise InputError(reason) from None
    if wanted and config is None:
        known = "configs/imdb.py:demo" if is_file else "configs/ablations/methods.py:smoke"
        own = f"; --mode={', '.join(OWN_CONFIG)} of a run need its --workdir=RUN alone" if is_file else ""
        raise InputError(f"--config=FILE.py is missing; try --config={known}{own}")
    if len(rest) > 1:
        known = [f"--{name}=" for name in flags.FLAGS.get_key_flags_for_module("__main__")] or ["--config="]
        raise InputError(f"argument {rest[1]!r} is not a flag; {nearest(rest[1], known)}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # what libraries say of their doings is not the user's concern
    if is_file:
        durations.resolve_units(config, config_flags.get_override_values(flags.FLAGS["config"]))
    return rest


def arranged(args: Sequence[str]) -> list[str]:
    """Return the arguments with `--config` first, as the flags library wants it, and with the full path of what it names.

    The `config.json` of a run is a config, too; `--workdir=RUN` alone names it where the mode is one of `OWN_CONFIG`.
    """
    rest, path = list(args), None
    for i, arg in enumerate(rest):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-config") and (equals or rest[i + 1 :]):
            path = value if equals else rest[i + 1]
            del rest[i : i + (1 if equals else 2)]
            break
    workdir = _value(rest, "workdir")
    if path is None and workdir and _value(rest, "mode") in OWN_CONFIG and "mode" in flags.FLAGS:
        path = str(Path(workdir) / "config.json")
    if path is None:
        return rest
    return [f"--config={recorded.__file__}:{path}" if path.endswith("config.json") else located(f"--config={path}"), *rest]


def _of_base(args: Sequence[str]) -> list[str]:
    """Return the arguments, where the config is a sweep's, with `--config.NAME=VALUE` as values of the flag `base`."""
    if "base" not in flags.FLAGS:
        return list(args)
    return [f"--base={arg}" if arg.lstrip("-").startswith(("config.", "noconfig.")) else arg for arg in args]


def recorded_run() -> Path | None:
    """Return the folder of the run whose own config `--config` is, None where it is another config."""
    file, _, path = flags.FLAGS["config"].config_filename.partition(":")
    return Path(path).parent if file == recorded.__file__ else None


def check_used(mode: str, used_by: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError for a flag that was given and that `mode` does not use; `used_by` says which modes use it."""
    for name, modes in used_by.items():
        if flags.FLAGS[name].present and mode not in modes:
            raise InputError(f"--{name}= is not used by --mode={mode}; it is for --mode={' and '.join(modes)}")


def _value(args: Sequence[str], wanted: str) -> str | None:
    """Return the value of the flag `wanted` among the arguments, the last where there are several."""
    found = None
    for arg, after in itertools.zip_longest(args, args[1:]):
        name, equals, value = arg.partition("=")
        if arg.startswith("-") and name.lstrip("-") == wanted:
            found = value if equals else after
    return found


@contextlib.contextmanager
def _program_arguments(argv: list[str]) -> Iterator[None]:
    """Within it `argv` are the program's arguments, where the flags library looks for the overrides of a config."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def located(arg: str) -> str:
    """Return `arg` with the full path of the ready config that it names, so that `--config=configs/imdb.py` works from any folder.

    A file of that name under the current folder comes first; any other argument is returned as it is.
    """
    flag, equals, path = arg.partition("=") if arg.startswith("-") and not arg.startswith("--config.") else ("", "", arg)
    file, colon, words = path.partition(":")
    ready = files.folder().parent / file
    if Path(file).exists() or Path(file).parts[:1] != ("configs",) or not ready.is_file():
        return arg
    return f"{flag}{equals}{ready}{colon}{words}"


def _reason(argv: list[str], error: Exception) -> str | None:
    """Return one line for a parsing error of the flags library, which says of an unknown field little more than its name.

    None is for an error that no argument explains.
    """
    names = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("-")]
    path = _value(argv, "config") or ""
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error)
    if isinstance(error, OSError):
        return f"config file {path.partition(':')[0]!r} cannot be read; the experiments are in configs/"
    if "Error whilst parsing config file" in str(error):
        return f"config file {path.partition(':')[0]!r}: {str(error).splitlines()[-1]}"
    if path and flags.FLAGS["config"].flag_type() == "config object":
        config = flags.FLAGS["config"].parser.parse(path)
        for name in (name.removeprefix("no").removeprefix("config.") for name in names if name.startswith(("config.", "noconfig."))):
            fields.check_field(config, name)
    return str(error).splitlines()[0] if isinstance(error, flags.Error) else None


def _unknown_flag(error: flags.UnrecognizedFlagError) -> str:
    """Return the line for a flag that the program does not have: it may be a field of the config, or have another name here."""
    name, known = error.flagname.removeprefix("config."), fields.field_names(fields.base("custom", fields.words("")))
    if name != error.flagname:
        return f"--config.{name} is given without --config=FILE.py"
    if name in known:
        return f"flag --{name} is not known; did you mean --config.{name}="
    if meaning := synonyms.meaning(name):
        return f"flag --{name} is not known; {meaning}" + (f": --config.{meaning.split(chr(39))[1]}=" if meaning.startswith("here") else "")
    return str(error).splitlines()[0]
