"""PC/SC and PKCS#11, read in a child process that may crash or hang. Nothing here logs in to a token."""

CHILD_COMMAND = "_token"
"""First argument with which the program starts itself as the child that talks to tokens."""
