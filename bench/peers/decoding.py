"""How a peer that reads back decodes a row: by the same decoder as shardlog, one call per row."""

from __future__ import annotations

import msgspec

from shardlog.format.values import decode_extension
from shardlog_tools.measuring.reading import DecodedRow

decode = msgspec.msgpack.Decoder(DecodedRow, ext_hook=decode_extension).decode
