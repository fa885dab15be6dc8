"""Signed data: TUF metadata on the embedded root, manifests decoded from it, payloads downloaded against it.

Everything that needs tuf, requests or cryptography is imported when it is first used.
"""
