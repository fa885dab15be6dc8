"""Keyfit: recognises a USB crypto token, installs its driver from signed data and proves that it works."""

__version__ = "0.1.0"
