"""Faces of Keyfit. The only layer that prints, asks or exits."""
