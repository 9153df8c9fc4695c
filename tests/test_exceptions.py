import inspect
import re

from sockets import exceptions


def test_the_hierarchy_is_the_one_that_is_drawn():
    drawn = {}
    for line in exceptions.__doc__.splitlines():
        match = re.match(r'([ |]*)\+-- (\w+)', line)
        if match:
            drawn[match.group(2)] = len(match.group(1))
    assert set(drawn) == {
        name for name, cls in inspect.getmembers(exceptions, inspect.isclass) if cls.__module__ == 'sockets.exceptions'
    }
    for name, indent in drawn.items():
        base = exceptions.SocketsError if indent > min(drawn.values()) else Exception
        assert issubclass(getattr(exceptions, name), base)


def test_a_failed_delivery_says_how_many_got_it_and_why_the_others_did_not():
    error = exceptions.DeliveryFailed(2, 5, 'Redis is away')
    assert (error.delivered, error.total) == (2, 5)
    assert str(error) == 'Handed to 2 of 5 connections, the others could not be reached: Redis is away'


def test_a_frame_error_says_what_the_client_is_told():
    error = exceptions.FrameError('invalid_content', 'No.', {'text': ['Too long.']})
    assert (error.code, error.details, error.errors) == ('invalid_content', 'No.', {'text': ['Too long.']})
    assert 'invalid_content' in str(error)
