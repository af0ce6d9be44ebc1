"""The process `leaf-rt`: runs a command, turns errors into one sentence and an exit code, and bears Ctrl-C at any time.

Even typer is imported inside of the guard: who presses Ctrl-C while Python still loads gets no traceback.
"""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # as in typing, whose import takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_BUG, EXIT_INTERRUPTED = 70, 130


def main(argv: Sequence[str] | None = None, commands: str = "leaf_rt.cli.commands", name: str = "leaf-rt") -> int:
    """Run a command; gives its exit code and never raises.

    Args:
        argv: Arguments without the program's name; those of the process by default.
        commands: Module with the typer application, as ``app``.
        name: The program's name, for the help.
    """
    try:
        return _logged(list(sys.argv[1:] if argv is None else argv), commands, name)
    except KeyboardInterrupt:  # before the command was there, or while another one was dealt with
        return EXIT_INTERRUPTED
    finally:
        if argv is None:  # the process ends by itself: one more Ctrl-C would only put a traceback in its place
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _logged(arguments: list[str], commands: str, name: str) -> int:
    import logging

    debug = "--debug" in arguments
    logging.getLogger("leaf_rt").addHandler(logging.NullHandler())  # what people must know is said by the commands
    if "--log-json" in arguments:
        from leaf_rt.cli import jsonlog

        with jsonlog.json_log(debug):
            return _run(arguments, debug, jsonlog.failure, commands, name)
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s: %(message)s")
    return _run(arguments, debug, _say, commands, name)


def _run(
    arguments: list[str], debug: bool, say: Callable[[BaseException, bool, str], None], commands: str, name: str
) -> int:
    from importlib import import_module

    from leaf_rt.errors import LeafError

    try:
        import_module(commands).app(args=arguments, prog_name=name)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except (LeafError, BrokenPipeError) as e:
        from leaf_rt.cli import console

        if console.nobody_reads(e):
            console.mute_stdout()
        else:
            say(e, debug, str(e))
        return console.exit_code(e)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 - the outermost frame: a bug ends here, said aloud and with its exit code
        from leaf_rt.cli import console

        refused = console.refused(e)
        if refused is not None:
            say(e, debug, str(refused))
            return refused.exit_code
        hint = "" if debug else "; --debug shows where"
        say(e, debug, f"this is a bug in leaf-rt ({type(e).__name__}: {e}){hint}")
        return EXIT_BUG
    return 0


def _say(error: BaseException, debug: bool, sentence: str) -> None:
    import traceback

    from leaf_rt.cli import console

    if debug:
        traceback.print_exception(error)
    console.error(console.console(), sentence)
