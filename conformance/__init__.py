"""The conformance suite: hold any backend against the spec.

Run it with ``pytest conformance/ --backend my_backend.py``; ``docs/hold-a-backend.md`` has the details.
"""
