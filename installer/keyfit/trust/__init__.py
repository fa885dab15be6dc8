"""Signed data: TUF metadata on an embedded root, manifests, payloads. Nothing comes out of here that was not verified."""
