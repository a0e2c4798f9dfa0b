"""Backends that the suite knows by name: one module each."""
