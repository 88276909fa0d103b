from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlog.server.faults import Fault
from shardlog.server.identifiers import iterator_text, parse_arn, parse_iterator, parse_sequence, sequence_text

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/users/stream/2026-01-01T00:00:00.000"


@given(st.integers(0, 10**19))
def test_a_sequence_number_is_one_and_twenty_digits(sequence: int) -> None:
    """So it is 21 digits long, what the model asks for at least; and it comes back."""
    text = sequence_text(sequence)
    assert len(text) == 21
    assert text[0] == "1"
    assert parse_sequence(text) == sequence


@pytest.mark.parametrize("text", ["", "1", "1" * 20, "1" * 41, "x" * 21, "-" + "1" * 21, "1" * 20 + "٣"])
def test_other_texts_are_no_sequence_numbers(text: str) -> None:
    """A ValidationException, also for digits of other scripts."""
    with pytest.raises(Fault) as raised:
        parse_sequence(text)
    assert raised.value.name == "ValidationException"


def test_numbers_compare_as_integers() -> None:
    """Leading zeros make no difference: up to 40 digits are taken."""
    assert parse_sequence("0" * 19 + sequence_text(7)) == 7


def test_an_arn_comes_apart() -> None:
    """Into region, account, table and label."""
    arn = parse_arn(ARN)
    assert arn == (ARN, ARN.partition("/stream")[0], "us-east-1", "123456789012", "users", "2026-01-01T00:00:00.000")


@pytest.mark.parametrize(
    "text",
    ["", "x" * 40, ARN + "Z", ARN[:-1], ARN.replace("dynamodb", "kinesis"), ARN.replace("users", "a b"), "\n" + ARN],
)
def test_other_texts_are_no_arns(text: str) -> None:
    """A ValidationException."""
    with pytest.raises(Fault, match="Invalid StreamArn"):
        parse_arn(text)


def test_an_iterator_names_its_stream() -> None:
    """`<stream arn>|<digit>|<opaque>`."""
    text = iterator_text(ARN, "abc-_=")
    assert text == f"{ARN}|1|abc-_="
    arn, token = parse_iterator(text)
    assert (arn.text, token) == (ARN, "abc-_=")


@pytest.mark.parametrize("text", ["", "|1|", ARN, f"{ARN}|1|", f"{ARN}|12|abc", f"{ARN}|1|a b", "nothing|1|abc", "|||"])
def test_other_texts_are_no_iterators(text: str) -> None:
    """A ValidationException that names the iterator, not the ARN in it."""
    with pytest.raises(Fault, match="Invalid ShardIterator"):
        parse_iterator(text)
