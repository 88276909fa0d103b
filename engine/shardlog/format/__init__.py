"""The on-disk format: bytes to values and back, without any I/O. One module for each thing that has bytes."""
