"""Entry point of `keyfit-publish`."""

import sys


def main() -> None:
    """Run one command."""
    from keyfit.publisher.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
