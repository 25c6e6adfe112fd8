"""Layers: forward and backward passes by hand, one derivation each, that compose into any model."""
