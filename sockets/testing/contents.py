"""The contents of frames, as a client decodes and compares them."""

import json
from typing import Any, Dict, Union

from .. import messages


def decode(frame: Union[str, bytes]) -> Any:
    """Return the content of a text that is JSON; ``frame`` itself if it is bytes or another text."""
    if isinstance(frame, bytes):
        return frame
    try:
        return json.loads(frame)
    except ValueError:
        return frame


def has_fields(content: Any, fields: Dict[str, Any]) -> bool:
    """Return whether ``content`` is a dict with these ``fields``, each as it was sent or as it arrived."""
    return all(
        isinstance(content, dict) and name in content and _equal(content[name], value) for name, value in fields.items()
    )


def _equal(value: Any, expected: Any) -> bool:
    """Return whether ``value``, which came as JSON, is ``expected``, or what JSON makes of that."""
    try:
        return bool(value == expected or value == json.loads(messages.text_of({'': expected}))[''])
    except TypeError:
        return False
