"""The command line: thin verbs over the functions of the library."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from typing import NoReturn

PACKAGES = {"faiss": "faiss-cpu", "torch": "'martlet[deep]'"}
"""What to install for a module, where that has another name."""
_STOPPED = "stopped; nothing was left half-written"


def main() -> None:
    """Run a verb: exit 0 done, 1 a stated failure, 2 wrong usage, 130 and 143 stopped."""
    # Python would look once more through every object of Numba's before it lets the process end.
    atexit.register(gc.freeze)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _run()
    except KeyboardInterrupt:
        _end(130, _STOPPED)
    except _Terminated:
        _end(143, _STOPPED)
    except ImportError as error:  # of a verb's own libraries, or of those that all verbs need
        if (error.name or "").partition(".")[0] == "martlet":
            raise
        _end(1, _missing(error), tell=True)
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM came: everything on the way out is tidied up, as after Ctrl-C."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _run() -> None:
    from martlet.cli.app import app
    from martlet.core.errors import MartletError

    try:
        app(prog_name="martlet")
    except MartletError as error:
        _end(1, str(error), tell=True)
    except MemoryError as error:
        what = str(error) or "no more was to be had"
        words = (
            f"the memory of this machine does not suffice ({what}): ask for less (a smaller dim, "
            "fewer neighbours, a shorter k, a smaller log), or use a machine with more"
        )
        _end(1, words, tell=True)
    except UnicodeEncodeError as error:
        _end(1, f"{error.object!r} is no UTF-8 text, as names and ids must be", tell=True)
    except OSError as error:
        _end(1, f"the system refused ({error}): see to that file, place or device", tell=True)


def _missing(error: ImportError) -> str:
    """Return which library cannot be imported, and how to get it."""
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    module = (error.name or "").partition(".")[0]
    advice = "'martlet doctor' looks at all that is needed"
    if not module:
        return f"a library cannot be imported ({reason}): {advice}"
    if module in sys.stdlib_module_names:
        return f"this Python lacks its own {module!r} ({reason}): use one that was built with it"
    again = "" if isinstance(error, ModuleNotFoundError) else "--force-reinstall "
    cure = f"python -m pip install {again}{PACKAGES.get(module, module)}"
    return f"the library {module!r} cannot be imported ({reason}): {cure}; {advice}"


def _end(code: int, words: str, *, tell: bool = False) -> NoReturn:
    """Say in one line why the process ends; ``tell`` says it in JSON too, where that is asked."""
    print(f"martlet: {words}", file=sys.stderr)
    if tell and "--json" in sys.argv:
        from martlet.cli.output import print_json

        print_json({"error": words})
    sys.exit(code)
