"""The index: an LMDB environment that is derived from the log, and the point where records become visible."""
