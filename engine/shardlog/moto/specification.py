"""What a table's StreamSpecification may say, and when: the rules of CreateTable and UpdateTable. Pure.

An enabled stream is disabled first, whatever is to become of it; a disabled one is not disabled again. Enabling needs a
view type, disabling takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from moto.dynamodb.exceptions import MockValidationException

from shardlog.options import ViewType


def is_enabling(specification: Mapping[str, Any] | None) -> bool:
    """Whether a specification asks for a stream. Raises what moto answers as ValidationException."""
    if not specification:
        return False
    view_type = specification.get("StreamViewType")
    if view_type is not None and view_type not in get_args(ViewType):
        raise MockValidationException(
            f"1 validation error detected: Value '{view_type}' at 'streamSpecification.streamViewType' failed to "
            "satisfy constraint: Member must satisfy enum value set: "
            "[NEW_IMAGE, OLD_IMAGE, NEW_AND_OLD_IMAGES, KEYS_ONLY]"
        )
    # CloudFormation's templates have a view type only.
    if not specification.get("StreamEnabled", view_type is not None):
        if view_type is not None:
            raise MockValidationException(
                "One or more parameter values were invalid: StreamEnabled false takes no StreamViewType"
            )
        return False
    if view_type is None:
        raise MockValidationException(
            "One or more parameter values were invalid: StreamViewType is required when StreamEnabled is true"
        )
    return True


def check_change(table_name: str, is_enabled: bool, specification: Mapping[str, Any]) -> None:
    """Whether UpdateTable may do what it asks. Raises what moto answers as ValidationException."""
    if is_enabling(specification):
        if is_enabled:
            raise MockValidationException(f"Table already has an enabled stream: TableName: {table_name}")
    elif not is_enabled:
        raise MockValidationException(f"Table has no stream to disable: TableName: {table_name}")
