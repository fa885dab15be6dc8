"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS`. Never returns."""

import sys

import atheris

with atheris.instrument_imports(include=["keyfit", "json", "tomllib", "tarfile", "zipfile"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run it."""
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
