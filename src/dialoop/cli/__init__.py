"""The command line. Importing this package is cheap: what computes is imported inside the commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `dialoop`: errors that a user can mend are one line and exit code 2."""
    from dialoop.cli.app import app
    from dialoop.errors import DialoopError, RejectsError

    try:
        app()
    except RejectsError as error:
        print(f"dialoop: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except DialoopError as error:
        print(f"dialoop: {error}", file=sys.stderr)
        raise SystemExit(2) from None
