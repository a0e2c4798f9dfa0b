"""Public threads about mistakes that no operation of the protocol can show, and why."""

NOT_EXPRESSIBLE: tuple[tuple[str, str, str], ...] = ()
"""The thread, what was wrong, why no wrong backend here shows it."""
