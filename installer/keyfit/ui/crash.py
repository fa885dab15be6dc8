"""What is kept of a fault of Keyfit's own: kinds of errors and places in the code, and nothing of what it was working on
(security I2). The message of an error, the arguments of a call and the values of variables may hold names of the user's."""

import traceback
from pathlib import PurePath

MAX_FRAMES = 48
"""Of one error; the innermost ones. More than the program has when it does not run in circles."""
MAX_ERRORS = 8


def frames(error: BaseException) -> list[str]:
    """One line an error of the chain, the newest first, each followed by its places, the innermost first."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < MAX_ERRORS:
        seen.add(id(current))
        lines.append(f"{type(current).__module__}.{type(current).__qualname__}")
        # walked by hand, since what `traceback` makes of it holds lines of source
        places = [(frame.f_code.co_filename, number, frame.f_code.co_name)
                  for frame, number in traceback.walk_tb(current.__traceback__)]
        lines += [f"  {place(name)}:{number} in {function}" for name, number, function in reversed(places[-MAX_FRAMES:])]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines


def place(file_name: str) -> str:
    """The path of a file of code from its package on: what lies before may be the user's home directory."""
    parts = PurePath(file_name.replace("\\", "/")).parts
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "keyfit":
            return "/".join(parts[number:])
        if parts[number] == "site-packages" or parts[number].startswith("python3."):
            return "/".join(parts[number + 1:])
    return parts[-1] if parts else "?"
