"""The envelope of messages: JSON objects with a type, their reserved keys and types, and their encoding."""

import functools
import json
import random
import re
import sys
from json import encoder

from .exceptions import FrameError

TYPE = 'type'
REF = 'ref'
# Whether a client has sent this frame before and got no answer.
RESENT = 'resent'
_ENVELOPE = TYPE, REF, RESENT
# What the frames of a demultiplexer have.
STREAM = 'stream'
PAYLOAD = 'payload'
# Of a message of a stream: which one, and where in it.
KEPT = 'kept'

# Types that both sides know.
HELLO = 'HELLO'
GOT_HELLO = 'GOT_HELLO'
PING = 'PING'
RECONNECT = 'RECONNECT'
ERROR = 'ERROR'
ACK = 'ACK'
FOLLOWING = 'FOLLOWING'
RESUME = 'RESUME'
RESUMED = 'RESUMED'
# What the library sends by itself.
SENT_BY_US = frozenset([GOT_HELLO, PING, RECONNECT, ERROR, ACK, FOLLOWING, RESUMED])

# Codes of an ERROR.
INVALID_JSON = 'invalid_json'
INVALID_MESSAGE = 'invalid_message'
UNKNOWN_TYPE = 'unknown_type'
TOO_LARGE = 'too_large'
INVALID_CONTENT = 'invalid_content'
NOT_ALLOWED = 'not_allowed'
NOT_FOUND = 'not_found'
RATE_LIMITED = 'rate_limited'
SERVER_ERROR = 'server_error'

# Close codes: RFC 6455, section 7.4.1, and our own in its private range.
CLOSE_NORMAL = 1000
CLOSE_TOO_LARGE = 1009
CLOSE_SERVER_ERROR = 1011
CLOSE_RESTART = 1012
CLOSE_TRY_AGAIN_LATER = 1013
CLOSE_BAD_FRAMES = 4400
CLOSE_LOGIN_REQUIRED = 4401
CLOSE_NOT_ALLOWED = 4403
CLOSE_RATE_LIMITED = 4429

# Codes that only say that the client has left: it closed, left the page, gave no code (RFC 6455, section 7.4.1).
ORDINARY_ENDS = (None, CLOSE_NORMAL, 1001, 1005, CLOSE_RESTART)

# Escapes that make a str which UTF-8 or a database cannot hold; the odd backslash is what makes it an escape.
_NUL = re.compile(r'(?<!\\)(?:\\\\)*\\u0000')
_SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')

# What a connection is refused with instead of HTTP 403, by its close code. Clients come back after these.
_STATUSES = {CLOSE_SERVER_ERROR: 500, CLOSE_RESTART: 503, CLOSE_TRY_AGAIN_LATER: 503}
# Seconds, at most, after which they are asked to: not all at once.
_COME_BACK = 5
# The limit of Python's stack up to which a content that contains itself ends there, and not with the process.
_DEEPEST = 10000

# How deep a content may be nested. Python up to 3.8 may end the process when what it decodes is deeper than its stack.
MAX_DEPTH = 200
# Everything but brackets: strings of JSON, also one that does not end (to try again at each quote would take quadratic
# time), and all other characters.
_BETWEEN_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[^][{}"]+', re.DOTALL)


def retry_after(seconds):
    """Return the reason of a close with 1013 whose client may come back after ``seconds``."""
    return f'retry={seconds:.1f}'


def refusal(code):
    """Return how a connection is refused that is closed with ``code`` before it is accepted: the HTTP status, what stands
    beside it, and the headers, pairs of texts.
    """
    status = _STATUSES.get(code, 403)
    if status == 503:
        return status, 'Come back later', [('Retry-After', str(random.randint(1, _COME_BACK)))]
    return status, 'Access denied' if status == 403 else 'Internal server error', []


def _refuse_constant(name):
    raise ValueError(f'{name} is not a JSON number')


def _finite(digits, float=float):
    # 1e999 is JSON, and infinity, which it becomes, is not. Only of infinity is this difference not 0.
    number = float(digits)
    if number - number:
        raise ValueError(f'{digits:.20} is too large a number')
    return number


def _short(digits):
    if len(digits) > 4300:
        raise ValueError(f'{digits:.20}... has too many digits')
    return int(digits)


# Made once: json.loads() would make one for each frame. Later Pythons limit integers themselves; to calculate one of a
# million digits takes seconds.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=None if hasattr(sys, 'get_int_max_str_digits') else _short,
)


def check_size(frame, max_size):
    """Raise ``FrameError`` if the frame, ``str`` or ``bytes``, is longer than ``max_size`` bytes."""
    # A character is 1 to 4 bytes of UTF-8: most frames are decided without encoding them.
    if (
        len(frame) > max_size
        or isinstance(frame, str)
        and (len(frame) * 4 > max_size < len(frame.encode('utf-8', 'surrogatepass')))
    ):
        raise FrameError(TOO_LARGE, f'A frame has at most {max_size} bytes.')


def decode(text):
    """Return the content (``dict``) of the frame ``text``, or raise ``FrameError``; ``None`` is a binary frame.

    The frame is untrusted: this is where it enters.
    """
    if text is None:
        raise FrameError(INVALID_MESSAGE, 'Binary frames are not understood; send a JSON object as text.')
    # Few brackets cannot be deep. That is true of nearly all frames.
    if len(text) > MAX_DEPTH and text.count('[') + text.count('{') > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise FrameError(INVALID_JSON, f'The JSON is nested too deeply: more than {MAX_DEPTH} levels.')
    try:
        try:
            # Without looking for blanks around it, which takes half of the time: nearly all frames have none.
            content, end = _DECODER.scan_once(text, 0)
        except StopIteration:
            end = -1
        if end != len(text):
            content = _DECODER.decode(text)
    except ValueError as error:
        raise FrameError(INVALID_JSON, f'This is not JSON: {error}.')
    if not isinstance(content, dict):
        raise FrameError(INVALID_MESSAGE, 'A frame is a JSON object with a type, like {"type": "HELLO"}.')
    if '\\u' not in text:
        return content
    if _NUL.search(text):
        raise FrameError(INVALID_JSON, 'A NUL character (\\u0000) is not text.')
    if _SURROGATE.search(text) and not _is_unicode(content):
        raise FrameError(INVALID_JSON, 'A lone surrogate (\\ud800 to \\udfff) is not text.')
    return content


def encode(content):
    """Return the text of ``content``, a ``dict`` of what Django's JSON encoder knows; else raise ``TypeError``.

    Also for what clients would take for a message of a stream, and keep from the page: it has come from ``history()``.
    """
    text = text_of(content)
    if KEPT in content or PAYLOAD in content:
        _refuse_place(content)
    return text


def text_of(content):
    """Return the text of ``content``, whatever it says."""
    if not isinstance(content, dict):
        raise TypeError(f'A message is a dict, not {type(content).__name__}: {content!r:.100}')
    try:
        return _encoder()(content)
    except TypeError as error:
        raise TypeError(f'This message cannot be JSON: {error}{_place_of_error(content)}') from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f'This message cannot be JSON: {error}') from error


def _place_of_error(content):
    """Return which field of ``content`` cannot be JSON."""
    for name, value in content.items():
        try:
            _encoder()({'': value})
        except TypeError:
            return f', in {name!r}. Send what names it, such as its pk.'
    return ''


def action(type, fields):
    """Return the content of ``type`` with ``fields``."""
    if not isinstance(type, str):
        raise TypeError(f"A type is a str, not {type!r:.60}: send_action('SAID', text=...). A dict is for send_json().")
    return {TYPE: type, **fields}


def kept_error():
    """Return the ``TypeError`` of somebody who sends a content with a place in a stream."""
    return TypeError(
        f'The key {KEPT!r} is not yours to set: it says where a message is in its stream. To send what history() '
        "returns, put it into a content of your own: {'type': 'OLDER', 'messages': [...]}."
    )


def _refuse_place(content):
    # As clients unwrap what comes through a demultiplexer.
    while isinstance(content, dict):
        kept = content.get(KEPT)
        if isinstance(kept, dict) and 'epoch' in kept and 'offset' in kept:
            raise kept_error()
        content = None if TYPE in content else content.get(PAYLOAD)


def fields(content):
    """Return ``content`` without what belongs to the envelope."""
    return {key: value for key, value in content.items() if key not in _ENVELOPE}


def error(code, details, **fields):
    """Return the content of an ``ERROR`` frame."""
    return {TYPE: ERROR, 'code': code, 'details': details, **fields}


def reconnect(details):
    """Return the content of the frame that tells a client to come back with a new session."""
    return {TYPE: RECONNECT, 'details': details}


def _depth(text):
    """Return how deep ``text`` is nested, or more than ``MAX_DEPTH`` if it is deeper."""
    brackets = _BETWEEN_BRACKETS.sub('', text).replace('{', '[').replace('}', ']')
    depth = 0
    while '[]' in brackets and depth <= MAX_DEPTH:
        brackets = brackets.replace('[]', '')
        depth += 1
    # The brackets that are left are not balanced, so that the text is not JSON.
    return depth + len(brackets)


@functools.lru_cache(maxsize=None)
def _encoder():
    # Django's serializers import its ORM, which this module must not need.
    from django.core.serializers.json import DjangoJSONEncoder

    found = DjangoJSONEncoder(allow_nan=False, separators=(',', ':'))
    if encoder.c_make_encoder is None:
        return found.encode
    # Made once: encode() makes one for each content. It has no memory of what it is in the middle of, which several threads
    # would share: what contains itself is too deep.
    make = encoder.c_make_encoder(
        None, found.default, encoder.encode_basestring_ascii, None, ':', ',', found.sort_keys, found.skipkeys, False
    )

    def encode(content):
        # A stack that Python does not limit would end the process.
        return ''.join(make(content, 0)) if sys.getrecursionlimit() <= _DEEPEST else found.encode(content)

    return encode


def _is_unicode(content):
    try:
        json.dumps(content, ensure_ascii=False).encode('utf-8')
    except UnicodeEncodeError:
        return False
    return True


def close_code(code):
    """Return ``code`` if a server may close with it (RFC 6455, section 7.4); ``ValueError`` if not."""
    if isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return int(code)
    raise ValueError(f'{code!r} is not a close code; use 1000, or one of your own from 4000 to 4999.')
