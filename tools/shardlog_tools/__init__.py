"""The command line of shardlog: one module per command, on the public interface of the engine."""
