"""Entry point of `keyfit-publish`."""

import sys

from keyfit.publisher.commands import run


def main() -> None:
    """Run the command line."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
