"""Flags to a config, with every mistake as one line. Shared by the programs of this package; imports no jax."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import configs
from configs import common
from research import process
from research.errors import InputError, nearest


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` after the flags are parsed. Bad input ends in one line on standard error and exit code 2."""
    process.prepare()
    try:
        app.run(main, flags_parser=parse)
    except InputError as error:
        sys.exit(_end(f"error: {error}", 2))
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
    try:
        rest = flags.FLAGS([located(arg) for arg in argv])
        wanted = "config" in flags.FLAGS
        config, is_file = (flags.FLAGS["config"].value, flags.FLAGS["config"].flag_type() == "config object") if wanted else (None, False)
        if is_file and config is not None and not isinstance(config, ConfigDict):
            raise OSError("a config file that cannot be read is left for later by the flags library")
    except (flags.Error, AttributeError, OSError) as error:
        raise InputError(_reason(argv, error)) from None
    if wanted and config is None:
        known = "configs/imdb.py:demo" if is_file else "configs/ablations/methods.py:smoke"
        raise InputError(f"--config=FILE.py is missing; try --config={known}")
    if len(rest) > 1:
        known = [f"--{name}=" for name in flags.FLAGS.get_key_flags_for_module("__main__")] or ["--config="]
        raise InputError(f"argument {rest[1]!r} is not a flag; {nearest(rest[1], known)}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # what libraries say of their doings is not the user's concern
    if is_file:
        common.settle_units(config, config_flags.get_override_values(flags.FLAGS["config"]))
    return rest


def located(arg: str) -> str:
    """Return `arg` with the full path of the ready config that it names, so that `--config=configs/imdb.py` works from any folder.

    A file of that name under the current folder comes first; any other argument is returned as it is.
    """
    flag, equals, path = arg.partition("=") if arg.startswith("-") and not arg.startswith("--config.") else ("", "", arg)
    file, colon, words = path.partition(":")
    ready = Path(configs.__path__[0]).parent / file
    if Path(file).exists() or Path(file).parts[:1] != ("configs",) or not ready.is_file():
        return arg
    return f"{flag}{equals}{ready}{colon}{words}"


def _reason(argv: list[str], error: Exception) -> str:
    """One line for a parsing error of the flags library, which says of an unknown field little more than its name."""
    joined = [f"--config={after}" if arg in ("--config", "-config") else arg for arg, after in zip(argv, [*argv[1:], ""], strict=True)]
    given = [arg.lstrip("-").partition("=") for arg in joined]
    path = next((value for name, _, value in given if name == "config"), "")
    if isinstance(error, OSError):
        return f"config file {path.partition(':')[0]!r} cannot be read; the experiments are in configs/"
    if isinstance(error, AttributeError):
        config = flags.FLAGS["config"].parser.parse(path)
        for name in (name.removeprefix("config.") for name, _, _ in given if name.startswith("config.")):
            common.check_field(config, name)
    return str(error).splitlines()[0]
