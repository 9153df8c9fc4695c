import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockets.connection import envelopes
from sockets.exceptions import FrameError

# A NUL and half a pair are no text, on the wire as in JSON.
texts = st.text(st.characters(min_codepoint=1, blacklist_categories=['Cs']), max_size=50)


@given(st.binary(), st.one_of(st.none(), texts, st.integers(-(2**53), 2**53), st.lists(texts, max_size=1)))
def test_what_was_wrapped_comes_out_as_it_was(data, ref):
    envelope, unwrapped = envelopes.unwrap(envelopes.wrap(data, ref))
    assert unwrapped == data and envelope.get('ref') == ref


@given(st.binary())
def test_data_that_look_like_an_envelope_are_data(tail):
    data = envelopes.MARK + tail
    assert envelopes.unwrap(envelopes.wrap(data)) == ({'ref': None}, data)


def test_an_envelope_is_json_between_two_nuls():
    assert envelopes.wrap(b'data', 'a1') == b'\0{"ref":"a1"}\0data'
    assert envelopes.unwrap(b'\0{"ref":"a1","resent":true}\0\0da\0ta') == ({'ref': 'a1', 'resent': True}, b'\0da\0ta')
    assert envelopes.unwrap(b'\0{"ref":"\\u0000 "}\0'.replace(b'\\u0000', b'\\n')) == ({'ref': '\n '}, b'')


@pytest.mark.parametrize(
    'frame',
    [
        b'',
        b'\0',
        b'data',
        b'{"ref":1}',
        b'\0{"ref"',
        b'\0{ "ref":1}\0data',
        b'\0{"type":"A","ref":1}\0data',
        b'x\0{"ref":1}\0data',
    ],
)
def test_without_an_envelope_a_frame_is_data(frame):
    assert envelopes.unwrap(frame) == ({}, frame)
    assert envelopes.wrap(frame) is frame


@pytest.mark.parametrize(
    'frame, code',
    [
        (b'\0{"ref":', 'invalid_message'),
        (b'\0{"ref":1}', 'invalid_message'),
        (b'\0{"ref":"' + b'x' * 1024 + b'"}\0data', 'invalid_message'),
        (b'\0{"ref":\0', 'invalid_json'),
        (b'\0{"ref":NaN}\0', 'invalid_json'),
        (b'\0{"ref":"\xff"}\0', 'invalid_json'),
        (b'\0{"ref":"\\u0000"}\0', 'invalid_json'),
        (b'\0{"ref":1}2\0', 'invalid_json'),
    ],
)
def test_a_broken_envelope_is_the_client_s_mistake(frame, code):
    with pytest.raises(FrameError) as raised:
        envelopes.unwrap(frame)
    assert raised.value.code == code
