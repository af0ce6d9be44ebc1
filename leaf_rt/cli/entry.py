"""The process `leaf-rt`: runs a command and turns every error into one sentence and an exit code.

Even typer is imported inside ``main``, so that Ctrl-C during the imports prints no traceback.
"""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # like typing.TYPE_CHECKING, whose import would take longer than the rest of this module
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_BUG, EXIT_INTERRUPTED = 70, 130


def main(argv: Sequence[str] | None = None, commands: str = "leaf_rt.cli.commands", name: str = "leaf-rt") -> int:
    """Run a command and return its exit code; raise nothing.

    Args:
        argv: Arguments without the name of the program. None: those of the process.
        commands: Module whose ``app`` is the typer application.
        name: Name of the program, for its help.
    """
    try:
        if argv is None:
            from leaf_rt.cli import streams

            streams.guard()
        return _main(list(sys.argv[1:] if argv is None else argv), commands, name)
    except KeyboardInterrupt:  # during the imports, or while another error was handled
        return EXIT_INTERRUPTED
    finally:
        if argv is None:  # the process ends now; another Ctrl-C would only print a traceback
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _main(arguments: list[str], commands: str, name: str) -> int:
    """Set up logging, which even the parsing of the arguments needs, and run the command."""
    import logging
    from functools import partial

    debug = "--debug" in arguments
    logging.getLogger("leaf_rt").addHandler(logging.NullHandler())  # the commands report what users must know
    if "--log-json" in arguments:
        from leaf_rt.cli import jsonlog

        with jsonlog.json_log(debug, arguments):
            return _run(arguments, debug, jsonlog.log_error, commands, name)
    if debug:
        from leaf_rt.cli.console import MaskedLines

        handler = logging.StreamHandler()
        handler.setFormatter(MaskedLines("%(asctime)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    return _run(arguments, debug, partial(_print_error, arguments), commands, name)


def _run(
    arguments: list[str], debug: bool, report: Callable[[BaseException, bool, str], None], commands: str, name: str
) -> int:
    from importlib import import_module

    from leaf_rt.cli.streams import ReaderGone
    from leaf_rt.errors import LeafError

    try:
        try:
            import_module(commands).app(args=arguments, prog_name=name)
        except SystemExit as e:
            _flush()
            return e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        _flush()
    except (LeafError, BrokenPipeError, ReaderGone) as e:
        from leaf_rt.cli import console

        if console.is_broken_pipe(e):
            console.mute_stdout()
        else:
            report(e, debug, str(e))
        return console.exit_code(e)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 - the outermost frame reports a bug and returns its exit code
        from leaf_rt.cli import console

        system_error = console.system_error(e)
        if system_error is not None:
            report(e, debug, str(system_error))
            return system_error.exit_code
        hint = "" if debug else "; use --debug to see the traceback"
        report(e, debug, f"this is a bug in leaf-rt ({type(e).__name__}: {e}){hint}")
        return EXIT_BUG
    return 0


def _flush() -> None:
    """Write what is left of the results now, where a failure still has an exit code."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _print_error(typed: Sequence[str], error: BaseException, debug: bool, sentence: str) -> None:
    """Print an error without the credentials of the addresses that the user typed."""
    import traceback

    from leaf_rt.cli import console
    from leaf_rt.credentials import mask_in

    if debug:
        sys.stderr.write(mask_in("".join(traceback.format_exception(error)), typed))
    console.error(console.console(), mask_in(sentence, typed))
