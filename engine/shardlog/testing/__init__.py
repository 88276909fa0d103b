"""Fakes and harnesses for tests of shardlog, and of programs that embed it. Product code never imports this."""
