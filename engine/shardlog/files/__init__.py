"""The I/O seam: every byte that the log writes, every sync, rename, unlink and lock goes through here."""
