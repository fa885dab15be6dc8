"""Where every run of `keyfit` begins: a switch that imports nothing by itself, so that each way
costs only what it needs: the cheap check for updates, the child that talks to tokens, or the whole program.

The adaptors are made in `keyfit.composition`.
"""

import sys


def main() -> None:
    """Entry point of `keyfit`."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["update"] and "--check" in arguments and sys.platform == "linux":
        from keyfit.ui.quick import quick_check

        code = quick_check(arguments[1:])
        if code is not None:
            sys.exit(code)
    from keyfit.token import CHILD_COMMAND

    _import_msgspec()
    if arguments[:1] == [CHILD_COMMAND]:
        from keyfit.token.child import main as child_main

        sys.exit(child_main(arguments[1:]))
    from keyfit.composition import compose, open_log, options_from_environment
    from keyfit.ui.cli import run

    sys.exit(run(arguments, options_from_environment(), compose, open_log))


def _import_msgspec() -> None:
    """msgspec uses typing_extensions if it is there, and the standard library's typing, with all we need, if not. Leaving
    it out here saves a tenth of the start-up time; who imports it later gets it."""
    if "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec  # noqa: F401

    del sys.modules["typing_extensions"]


if __name__ == "__main__":
    main()
