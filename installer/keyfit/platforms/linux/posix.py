"""Names of `os` that only POSIX systems have, so that the adaptor can be imported and checked on every system."""

import os
from typing import Any

posix: Any = os
"""The module `os`, typed loosely: on Windows it lacks names such as `geteuid`, and nothing here is called there."""
