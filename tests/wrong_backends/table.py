"""The wrong backends of every chapter: slips that are easily made, and bugs that libraries have had."""

from importlib import import_module

from conformance.operations import CHAPTERS
from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = tuple(
    edit for chapter in CHAPTERS for edit in import_module(f"tests.wrong_backends.{chapter}").EDITS
)
