"""Control batches: what changes a stream's state, as bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import text, thorough

from shardlog.errors import CorruptLog
from shardlog.format.control import CHECKPOINT, CLOSE, POSITION, decode_controls, encode_controls

controls = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just(POSITION), "producer": text, "position": st.integers(min_value=0, max_value=2**63 - 1)}
    ),
    st.fixed_dictionaries({"kind": st.just(CLOSE), "at_us": st.integers(min_value=-(2**63), max_value=2**63 - 1)}),
    st.fixed_dictionaries(
        {
            "kind": st.just(CHECKPOINT),
            "snapshot": st.binary(max_size=40),
            "positions": st.lists(st.lists(st.integers(min_value=0, max_value=2**63), min_size=4, max_size=4)),
        }
    ),
)


@given(records=st.lists(controls, max_size=5))
@thorough
def test_control_records_come_back(records: list[dict[str, Any]]) -> None:
    """Every kind with its fields, in order."""
    assert decode_controls(encode_controls(records), len(records)) == records


def test_a_kind_of_a_later_release_is_handed_on() -> None:
    """What it means is not this module's business: whoever folds it says that it is not known."""
    later = [{"kind": "merge", "left": 1}]
    assert decode_controls(encode_controls(later), 1) == later


def test_a_body_that_is_cut_or_goes_on_is_corrupt() -> None:
    """At every length, and with anything behind it."""
    body = encode_controls([{"kind": POSITION, "producer": "p", "position": 7}, {"kind": CLOSE, "at_us": 1}])
    for length in range(len(body)):
        with pytest.raises(CorruptLog):
            decode_controls(body[:length], 2)
    with pytest.raises(CorruptLog, match="decode"):
        decode_controls(body + b"\0", 2)


@pytest.mark.parametrize(
    ("content", "count"),
    [([], 1), ({}, 0), (None, 0), (7, 1), ([{"kind": CLOSE}], 2), ([{}], 1), ([["kind"]], 1), ([{"kind": 7}], 1)],
    ids=str,
)
def test_what_is_no_control_batch_is_corrupt(content: object, count: int) -> None:
    """Another type, another count, no kind."""
    with pytest.raises(CorruptLog, match="expected"):
        decode_controls(msgpack.packb(content), count)
