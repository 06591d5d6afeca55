"""Captured SPOP as a readable tree: what `kat inspect` prints."""
