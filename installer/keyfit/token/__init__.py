"""PC/SC and PKCS#11, read in a child process that may crash or hang. Nothing here logs in to a token."""
