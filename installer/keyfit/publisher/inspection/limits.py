"""How much of a package file is looked at. Driver packages hold tens of files and hundreds of megabytes at most."""

MAX_FILE_BYTES = 4_000_000_000
"""As `keyfit.model.catalog.Payload.length_bytes` allows."""
MAX_MEMBERS = 20_000
"""Files in a package."""
MAX_NAME_CHARACTERS = 1_024
MAX_UNPACKED_BYTES = 4_000_000_000
"""What all compressed parts of a package may come to."""
MAX_BINARY_BYTES = 128 * 1024 * 1024
"""A member that is looked at as a whole, such as a driver inside an archive."""
MAX_TEXT_BYTES = 4 * 1024 * 1024
"""An INF, a script, a table of contents."""
MAX_SIGNATURE_BYTES = 8 * 1024 * 1024
"""A PKCS #7 structure; catalogues of large driver packages reach a megabyte."""
MAX_CERTIFICATES = 64
MAX_FINDINGS = 200
"""Problems told of one file; the rest is counted."""

CPU_S = 240
TIMEOUT_S = 300.0
MEMORY_BYTES = 2 * 1024**3
"""Address space of the child. The largest member in memory, its decompressed form and OpenSSL fit several times."""
OPEN_FILES = 64
MAX_ANSWER_BYTES = 16 * 1024 * 1024
