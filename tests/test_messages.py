import datetime
import decimal
import json
import subprocess
import sys
import uuid

import pytest
from django.utils.translation import gettext_lazy

from sockets import messages
from sockets.exceptions import FrameError


def test_what_is_encoded_is_decoded_again():
    content = {'type': 'CHAT', 'text': 'ünïcödé 😀', 'list': [1, 2.5, None, True, {'a': {}}]}
    assert messages.decode(messages.encode(content)) == content


def test_content_is_encoded_as_django_does():
    when = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.timezone.utc)
    key = uuid.uuid4()
    text = messages.encode(
        {
            'when': when,
            'day': when.date(),
            'key': key,
            'amount': decimal.Decimal('1.10'),
            'lazy': gettext_lazy('yes'),
            'took': datetime.timedelta(seconds=90),
        }
    )
    assert json.loads(text) == {
        'when': '2026-11-21T12:00:00Z',
        'day': '2026-11-21',
        'key': str(key),
        'amount': '1.10',
        'lazy': 'yes',
        'took': 'P0DT00H01M30S',
    }


@pytest.mark.parametrize(
    'content',
    [
        {'x': object()},
        {'x': float('inf')},
        {('a',): 1},
        {'x': b''},
        ['type'],
        'text',
        None,
        {'x': datetime.time(1, tzinfo=datetime.timezone.utc)},
    ],
)
def test_what_cannot_be_encoded_is_a_type_error(content):
    with pytest.raises(TypeError):
        messages.encode(content)


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100000,
        '{"a":' * 100000,
        '{"type":"T","a":' + '[{"":' * 100 + '0' + '}]' * 100 + '}',
        '{"type":"T","a":' + '["]",' * 200 + '0' + ']' * 200 + '}',
        '{"type":"T","a":' + '["\\"]",' * 200 + '0' + ']' * 200 + '}',
    ],
)
def test_content_nested_too_deeply_to_decode_is_refused_before_it_is_decoded(text, monkeypatch):
    # Python 3.8 once ended with "Cannot recover from stack overflow".
    monkeypatch.setattr(messages, '_DECODER', None)
    with pytest.raises(FrameError, match='more than 200 levels'):
        messages.decode(text)


@pytest.mark.parametrize(
    'value',
    [
        '[' * 199 + ']' * 199,
        '[' + '{"a":[1]},' * 1000 + '0]',
        '"' + '[' * 1000 + '"',
        '["\\"' + '[{' * 1000 + '"]',
        '["\\\\",[],"' + '[{' * 1000 + '"]',
    ],
)
def test_many_brackets_are_not_deep(value):
    assert messages.decode('{"type":"T","a":' + value + '}')['type'] == 'T'


def test_content_nested_too_deeply_to_encode_is_a_type_error():
    content = {}
    for _ in range(200000):
        content = {'x': content}
    with pytest.raises(TypeError):
        messages.encode(content)


@pytest.mark.parametrize('size, frame', [(17, '{"type": "ECHO"}'), (16, '{"type": "ECHO"}'), (18, '{"type": "Éé"}')])
def test_a_frame_of_just_the_limit_is_read(size, frame):
    messages.check_size(frame, size)
    messages.check_size(frame.encode(), size)


@pytest.mark.parametrize('size, frame', [(15, '{"type": "ECHO"}'), (15, '{"type": "Éé"}')])
def test_a_frame_of_one_byte_more_is_too_large(size, frame):
    for form in (frame, frame.encode()):
        with pytest.raises(FrameError) as error:
            messages.check_size(form, size)
        assert error.value.code == messages.TOO_LARGE


def test_a_number_of_a_million_digits_is_refused_and_not_calculated():
    with pytest.raises(FrameError) as error:
        messages.decode('{"n": %s}' % ('9' * 1000000))
    assert error.value.code == messages.INVALID_JSON


@pytest.mark.parametrize(
    'number', ['1e999', '-1e999', '1E+309', '1' * 310 + '.0', '0.1e310', '17976931348623159' + '0' * 293 + '.5']
)
@pytest.mark.parametrize('text', ['{"n": %s}', '{"ref": %s}', '{"a": [{"b": [0, %s]}]}'])
def test_a_number_that_json_cannot_give_back_is_refused(number, text):
    # It became infinity, which failed in whatever answered with it.
    with pytest.raises(FrameError, match='is too large a number') as error:
        messages.decode(text % number)
    assert error.value.code == messages.INVALID_JSON and len(error.value.details) < 80


@pytest.mark.parametrize(
    'number', ['1e308', '-1.7976931348623157e308', '1e-999', '-0.0', '1' * 400, '12e3', '1' * 4300]
)
def test_a_number_that_json_can_give_back_is_taken(number):
    content = messages.decode('{"n": ' + number + ', "text": "1e999"}')
    assert messages.decode(messages.encode(content)) == content


def test_the_digits_of_an_integer_are_limited_on_pythons_that_do_not_do_so():
    assert messages._short('-12') == -12 and messages._short('9' * 4300)
    with pytest.raises(ValueError, match='too many digits'):
        messages._short('9' * 4301)


def test_the_envelope_needs_neither_the_orm_nor_channels():
    program = (
        'import sys, sockets.messages, sockets.routes; print([m for m in sys.modules if m in ('
        '"django.db", "django.db.models", "channels")])'
    )
    assert subprocess.check_output([sys.executable, '-c', program]).strip() == b'[]'


@pytest.mark.parametrize('code', [1000, 1001, 1011, 1012, 3000, 4401, 4999])
def test_a_server_may_close_with(code):
    assert messages.close_code(code) == code


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, None, '1000', 1000.0])
def test_a_server_may_not_close_with(code):
    with pytest.raises(ValueError, match='4000 to 4999'):
        messages.close_code(code)
