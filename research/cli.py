"""Command-line parsing: flags to a config, and every user error as one line. Shared by the programs of this package; imports no jax."""

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

CLOSED_PIPE = 141  # exit code after the reader of standard output closed the pipe: 128 + SIGPIPE
SAVED_CONFIG_MODES = ("predict", "evaluate", "export", "plan", "embed")  # without --config, these read the config of the run in --workdir
_PARSING = (flags.Error, AttributeError, OSError, TypeError, KeyError, IndexError, ValueError)


def run(main: Callable[[list[str]], None]) -> None:
    """Parse the flags and run `main`. Bad input prints one line on standard error and exits with code 2, an interrupt with code 130.

    Output is UTF-8 in every locale. A closed pipe (`| head`) ends the program without a message.
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
        sys.exit(_report(f"error: {error}", 2))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at exit the interpreter flushes standard output again
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if not error.filename:
            raise
        sys.exit(_report(f"error: {error.filename}: {error.strerror}", 2))
    except KeyboardInterrupt:
        sys.exit(_report("Interrupted. Run the same command again to resume from the latest checkpoint.", 130))


def _report(line: str, code: int) -> int:
    """Print `line` on standard error and return the exit code."""
    print(line, file=sys.stderr)
    return code


def parse(argv: list[str]) -> list[str]:
    """Parse the flags and return the other arguments. A flag called `config` becomes a ConfigDict in which each duration has one unit.

    `--help` prints the flags of the program and exits. Raise InputError for any argument that is not understood.
    """
    if {"--help", "-help", "-h"} & set(argv):
        print(sys.modules["__main__"].__doc__, flags.FLAGS.main_module_help(), sep="\n")
        sys.exit(0)
    argv = [argv[0], *_as_base_changes(_config_first(argv[1:]))]
    try:
        with _program_arguments(argv):
            rest = flags.FLAGS(argv)
        lists = "list" in flags.FLAGS and flags.FLAGS["list"].value
        needed = "config" in flags.FLAGS and not lists
        config, is_file = (flags.FLAGS["config"].value, flags.FLAGS["config"].flag_type() == "config object") if needed else (None, False)
        if is_file and config is not None and not isinstance(config, ConfigDict):
            raise OSError("the flags library does not raise for a config file that cannot be read")
    except _PARSING as error:
        reason = _reason(argv, error)
        if reason is None:
            raise
        raise InputError(reason) from None
    if needed and config is None:
        example = "configs/imdb.py:demo" if is_file else "configs/ablations/methods.py:smoke"
        instead = f"; with --mode={', '.join(SAVED_CONFIG_MODES)}, --workdir=RUN is enough" if is_file else ""
        raise InputError(f"--config=FILE.py is missing; try --config={example}{instead}")
    if len(rest) > 1:
        known = [f"--{name}=" for name in flags.FLAGS.get_key_flags_for_module("__main__")] or ["--config="]
        raise InputError(f"argument {rest[1]!r} is not a flag; {nearest(rest[1], known)}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # hides the information messages of libraries
    if is_file:
        durations.resolve_units(config, given_fields())
    return rest


def given_fields() -> list[str]:
    """Return the names of the config fields that the command line sets."""
    return list(config_flags.get_override_values(flags.FLAGS["config"]))


def _config_first(args: Sequence[str]) -> list[str]:
    """Return the arguments with `--config` first, as the flags library requires, and with the full path of its file.

    The `config.json` of a run is a config, too. In the modes of `SAVED_CONFIG_MODES`, `--workdir=RUN` without `--config` selects it.
    """
    rest, path = list(args), None
    for i, arg in enumerate(rest):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-config") and (equals or rest[i + 1 :]):
            path = value if equals else rest[i + 1]
            del rest[i : i + (1 if equals else 2)]
            break
    workdir = _value(rest, "workdir")
    if path is None and workdir and _value(rest, "mode") in SAVED_CONFIG_MODES and "mode" in flags.FLAGS:
        path = str(Path(workdir) / "config.json")
    if path is None:
        return rest
    return [f"--config={recorded.__file__}:{path}" if path.endswith("config.json") else located(f"--config={path}"), *rest]


def _as_base_changes(args: Sequence[str]) -> list[str]:
    """Return the arguments. In a program with the flag `base` (for sweeps), each `--config.NAME=VALUE` becomes a value of that flag."""
    if "base" not in flags.FLAGS:
        return list(args)
    return [f"--base={arg}" if arg.lstrip("-").startswith(("config.", "noconfig.")) else arg for arg in args]


def recorded_run(mode: str) -> Path | None:
    """Return the folder of the run whose saved config `--config` names; None if it names another config, or if `mode` trains."""
    file, _, path = flags.FLAGS["config"].config_filename.partition(":")
    return Path(path).parent if file == recorded.__file__ and mode in SAVED_CONFIG_MODES else None


def check_used(mode: str, used_by: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError for a flag that was given and that `mode` does not use. `used_by` maps a flag to the modes that use it."""
    for name, modes in used_by.items():
        if flags.FLAGS[name].present and mode not in modes:
            raise InputError(f"--{name}= is not used by --mode={mode}; it is for --mode={' and '.join(modes)}")


def _value(args: Sequence[str], wanted: str) -> str | None:
    """Return the value of the flag `wanted` in the arguments (the last one if it is repeated), None if it is absent."""
    result = None
    for arg, after in itertools.zip_longest(args, args[1:]):
        name, equals, value = arg.partition("=")
        if arg.startswith("-") and name.lstrip("-") == wanted:
            result = value if equals else after
    return result


@contextlib.contextmanager
def _program_arguments(argv: list[str]) -> Iterator[None]:
    """Set `sys.argv` to `argv` inside the block: the flags library reads the overrides of a config from there."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def located(arg: str) -> str:
    """Return `arg` with the full path of the ready-made config that it names, so that `--config=configs/imdb.py` works in any folder.

    A file of that name under the current folder takes precedence. Any other argument is returned unchanged.
    """
    flag, equals, path = arg.partition("=") if arg.startswith("-") and not arg.startswith("--config.") else ("", "", arg)
    file, colon, words = path.partition(":")
    ready = files.folder().parent / file
    if Path(file).exists() or Path(file).parts[:1] != ("configs",) or not ready.is_file():
        return arg
    return f"{flag}{equals}{ready}{colon}{words}"


def _reason(argv: list[str], error: Exception) -> str | None:
    """Return one line for a parsing error of the flags library, whose message for an unknown field gives little more than the name.

    Return None for an error that no argument explains.
    """
    names = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("-")]
    path = _value(argv, "config") or ""
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error)
    if isinstance(error, OSError):
        return f"config file {path.partition(':')[0]!r} cannot be read; the ready-made configs are in configs/"
    if "Error whilst parsing config file" in str(error):
        return f"config file {path.partition(':')[0]!r}: {str(error).splitlines()[-1]}"
    if path and flags.FLAGS["config"].flag_type() == "config object":
        config = flags.FLAGS["config"].parser.parse(path)
        for name in (name.removeprefix("no").removeprefix("config.") for name in names if name.startswith(("config.", "noconfig."))):
            fields.check_field(config, name)
    return str(error).splitlines()[0] if isinstance(error, flags.Error) else None


def _unknown_flag(error: flags.UnrecognizedFlagError) -> str:
    """Return one line for an unknown flag, which may be a field of the config or the name of a setting in another library."""
    name, known = error.flagname.removeprefix("config."), fields.field_names(fields.base("custom", fields.words("")))
    if name != error.flagname:
        return f"--config.{name} is given without --config=FILE.py"
    if name in known:
        return f"flag --{name} is not known; did you mean --config.{name}="
    if meaning := synonyms.meaning(name):
        return f"flag --{name} is not known; {meaning}" + (f": --config.{meaning.split(chr(39))[1]}=" if meaning.startswith("here") else "")
    return str(error).splitlines()[0]
