"""Frozen data: what Keyfit knows. No input, no output, no decisions."""
