"""Runs the Python blocks of every chapter (and of README.md) as tests; a block sees the names of the blocks before it in its chapter."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()
