"""`python -m shardlog_tools`: the same as the command `shardlog`."""

from __future__ import annotations

import sys

from shardlog_tools.main import main

sys.exit(main())
