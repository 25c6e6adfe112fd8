"""Runs the Python blocks of every chapter (and of README.md) as tests; a block sees its chapter's earlier names."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()
