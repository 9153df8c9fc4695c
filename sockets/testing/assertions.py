"""What a test says of a client."""


def assert_received(client, **fields):
    """Take the first frame with these ``fields`` out of those that ``client`` has received, and return it.

    A field is what was sent, or what became of it on the way (a date is a text). ``AssertionError`` if there is none.
    """
    __tracebackhide__ = True
    content = client._take(fields)
    if content is None:
        raise AssertionError('{!r} received no {}.\n{}'.format(client, fields or 'frame', client._history()))
    return content


def assert_not_received(client, **fields):
    """``AssertionError`` if ``client`` has received a frame with these ``fields``, or any, that was not taken yet."""
    __tracebackhide__ = True
    content = client._find(fields)
    if content is not None:
        raise AssertionError('{!r} received {}.'.format(client, content))
