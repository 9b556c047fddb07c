"""``ssl-framework VERB key=value ...``: reads the words, runs the verb, turns its end into an exit code.

Exit codes: 0 done; 1 the program failed (a traceback says where), or ``check`` found what must be mended; 2 something on the
command line or in the data is wrong (one sentence says what); 75 stopped by a signal, with everything saved: come again; 130
stopped by Ctrl-C.

Nothing that is imported here imports torch, so that help and error messages come at once.

`sys.argv` is read and never edited: Lightning's launcher starts the other processes of a run by running it again.
"""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from ssl_framework import __version__
from ssl_framework.commands import VERBS, compose, errors, explain, installed, launch, usage

FLAGS = {"--help": "help", "-h": "help", "--multirun": "multirun", "-m": "multirun", "--cfg": "cfg", "--traceback": "traceback"}


def main() -> NoReturn:
    """The console script."""
    code = run(sys.argv[1:])
    gc.freeze()  # else Python looks through all that was imported for garbage, for two seconds, before it ends
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        arguments: what stands after ``ssl-framework``.

    Returns:
        The exit code.
    """
    flags = {FLAGS[word] for word in arguments if word in FLAGS}
    return _reported(lambda: _dispatch(arguments, flags), with_traceback="traceback" in flags)


def _dispatch(arguments: Sequence[str], flags: set[str]) -> None:
    words = [word for word in arguments if not word.startswith("-")]
    if "--version" in arguments:
        print(__version__)
        return
    _check_flags(arguments)

    if not words:
        print(usage.overview())
        return
    verb, *words = words
    _check_verb(verb)
    installed.require()
    words = explain.keyed(verb, words)
    if "help" in flags:
        print(usage.page(verb, compose.checked(verb, compose.inherited(verb, words))))
    elif "cfg" in flags:
        print(launch.shown(verb, words))
    else:
        launch.launch(verb, words, sweep="multirun" in flags)


def _check_flags(arguments: Sequence[str]) -> None:
    for word in arguments:
        if word.startswith("-") and word not in FLAGS:
            raise ValueError(f"{word}: no such option. {explain.did_you_mean(word, [*FLAGS, '--version'], 'Options')}")


def _check_verb(verb: str) -> None:
    if verb not in VERBS:
        what = "The verb comes first" if "=" in verb else "no such verb"
        raise ValueError(f"{verb}: {what}. {explain.did_you_mean(verb, list(VERBS), 'Verbs')}")


def _reported(work: Callable[[], None], *, with_traceback: bool) -> int:
    """Do the work; tell how it ended in words on stderr and in a number."""
    try:
        work()
    except BrokenPipeError:  # `ssl-framework ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except (errors.StoppedError, errors.FoundError) as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    except Exception as error:  # the outermost frame: everything ends here, as one sentence or as a traceback
        message = errors.sentence(error)
        if message is None or with_traceback:
            traceback.print_exception(error)
        if message is None:
            return 1
        print(f"error: {errors.printable(message)}", file=sys.stderr)
        return 2
    return 0
