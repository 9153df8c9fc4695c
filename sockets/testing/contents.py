"""What a client makes of a frame."""
import json

from .. import messages


def decode(frame):
    """Return the content of a text that is JSON, and ``frame`` itself if it is bytes or another text."""
    if isinstance(frame, bytes):
        return frame
    try:
        return json.loads(frame)
    except ValueError:
        return frame


def has_fields(content, fields):
    """Return whether ``content`` is a dict with these ``fields``, each as it was sent or as it arrived."""
    return all(isinstance(content, dict) and name in content and _equal(content[name], value)
               for name, value in fields.items())


def _equal(value, expected):
    """Return whether ``value``, which came as JSON, is ``expected``, or what JSON makes of that."""
    try:
        return value == expected or value == json.loads(messages.encode({'': expected}))['']
    except TypeError:
        return False
