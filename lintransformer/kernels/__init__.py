"""Fast paths: the same numbers as the layers, in buffers of their own, for one shape of batch."""
