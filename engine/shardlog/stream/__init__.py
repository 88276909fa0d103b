"""One stream, open: its state, appending, reading, iterators. Whoever opens and shares streams is `api`."""
