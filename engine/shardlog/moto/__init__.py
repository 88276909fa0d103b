"""DynamoDB tables by `moto`, with their streams in a store: for test suites, and for `shardlog serve --dynamodb`.

    import shardlog.moto

    shardlog.moto.install("streams")  # in conftest.py, say; from now on mock_aws() records tables' streams there

Every put, update, delete, batch, transaction and PartiQL statement goes into the table's stream as AWS would record it.
Tables and items stay in moto's memory; their streams are on disk, and outlive mock_aws() and the process: a table that
is made again gets a new stream, and the old one stays readable for 24 hours. One process at a time records into a
store. Needs the extra `dynamodb`.
"""

from shardlog.moto.installing import Installed, install
from shardlog.moto.versions import MOTO_VERSIONS

__all__ = ["MOTO_VERSIONS", "Installed", "install"]
