"""The command line: thin verbs over the functions of the library."""

from __future__ import annotations

import atexit
import gc
import sys


def main() -> None:
    """Run a verb: exit 0 done, 1 a stated failure, 2 wrong usage."""
    from martlet.cli.app import app
    from martlet.core.errors import MartletError

    # Python would look once more through every object of Numba's before it lets the process end.
    atexit.register(gc.freeze)
    as_json = "--json" in sys.argv
    try:
        app(prog_name="martlet")
    except MartletError as error:
        print(f"martlet: {error}", file=sys.stderr)
        if as_json:
            from martlet.cli.output import print_json

            print_json({"error": str(error)})
        sys.exit(1)
