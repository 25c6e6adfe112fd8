"""Models with forward and backward passes, and the tangents of both, written by hand."""
