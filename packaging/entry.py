"""Start of the frozen program."""

from keyfit.__main__ import main

main()
