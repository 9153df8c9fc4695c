import re

import pytest

from sockets.routes import Function, Route, RouteTable, covers


def call(function, kwargs=None, argument='content'):
    return Function(function, argument)('SOCKET', 'CONTENT', kwargs or {})


@pytest.mark.parametrize(
    'function, kwargs, result',
    [
        (lambda socket: [socket], {}, ['SOCKET']),
        (lambda socket, content: [socket, content], {}, ['SOCKET', 'CONTENT']),
        (lambda socket, content=None: [socket, content], {}, ['SOCKET', 'CONTENT']),
        (lambda self, data: [self, data], {}, ['SOCKET', 'CONTENT']),
        (lambda socket, *, content: [content], {}, ['CONTENT']),
        (lambda socket, content, room: [content, room], {'room': 'a'}, ['CONTENT', 'a']),
        (lambda socket, room, content: [content, room], {'room': 'a'}, ['CONTENT', 'a']),
        (lambda socket, room: [room], {'room': 'a', 'other': 'b'}, ['a']),
        (lambda socket, data, room: [data, room], {'room': 'a'}, ['CONTENT', 'a']),
        (lambda socket, room=None: [room], {}, [None]),
        (lambda socket, room=None: [room], {'room': 'a'}, ['a']),
        (lambda socket, **kwargs: kwargs, {'room': 'a'}, {'room': 'a'}),
        (
            lambda socket, content, **kwargs: [content, kwargs],
            {'room': 'a', 'content': 'url'},
            ['CONTENT', {'room': 'a'}],
        ),
        (lambda *args: list(args), {'room': 'a'}, ['SOCKET', 'CONTENT']),
        (lambda *args, **kwargs: [args, kwargs], {'room': 'a'}, [('SOCKET', 'CONTENT'), {'room': 'a'}]),
        (lambda socket, content: [content], {'room': 'a'}, ['CONTENT']),
    ],
)
def test_a_function_gets_the_arguments_that_it_names(function, kwargs, result):
    assert call(function, kwargs) == result


def test_a_hook_gets_the_message_under_its_own_name():
    assert call(lambda socket, message=None: message, argument='message') == 'CONTENT'


def test_a_callable_object_and_a_bound_method_are_functions():
    class Thing:
        def __call__(self, socket, content):
            return content

        def method(self, socket, content):
            return content

    assert call(Thing()) == call(Thing().method) == 'CONTENT'


@pytest.mark.parametrize(
    'function, word',
    [
        (lambda: None, 'takes no argument'),
        (lambda *, content: None, 'takes no argument'),
        ('on_ping', 'not a function'),
        (None, 'not a function'),
    ],
)
def test_a_signature_that_can_never_be_called_is_refused_at_once(function, word):
    with pytest.raises(TypeError, match=word):
        Function(function, 'content')


def test_missing_names_what_a_url_does_not_give():
    function = Function(lambda socket, content, room, slug=None: None, 'content')
    assert function.missing({'slug'}) == ['room']
    assert function.missing({'room'}) == []
    # Whatever its name, the second argument can be the content.
    assert Function(lambda socket, data: None, 'content').missing(()) == []


@pytest.mark.parametrize('pattern', [None, 7, b'PING', re.compile(b'PING'), ['PING'], len, '', 'x' * 256])
def test_a_pattern_is_a_type_or_a_compiled_regex(pattern):
    with pytest.raises(TypeError):
        Route(pattern, len)


def test_a_route_says_what_it_leads_to():
    def on_ping(socket):
        pass

    assert repr(Route('PING', Function(on_ping, 'content'))).startswith("<Route 'PING' -> ")
    assert 'on_ping' in repr(Route(re.compile('P.*'), on_ping))


def table(*patterns):
    return RouteTable([Route(pattern, index) for index, pattern in enumerate(patterns)])


@pytest.mark.parametrize(
    'patterns, type, index',
    [
        (['A', 'B'], 'B', 1),
        (['A', 'A'], 'A', 1),
        ([re.compile('A.*'), 'AB'], 'AB', 1),
        (['AB', re.compile('A.*')], 'AB', 1),
        ([re.compile('A'), re.compile('AB')], 'AB', 1),
        ([re.compile('AB'), re.compile('A')], 'AB', 1),
        ([re.compile('AB'), re.compile('A')], 'AC', 1),
        (['A', re.compile('X'), 'B'], 'A', 0),
    ],
)
def test_the_route_defined_last_wins(patterns, type, index):
    assert table(*patterns).match(type).function == index


def test_a_regex_matches_from_the_start_and_not_from_the_middle():
    routes = table(re.compile('ACTION_'))
    assert routes.match('ACTION_FOLD') is not None
    assert routes.match('GAME_ACTION_FOLD') is None


@pytest.mark.parametrize('type', [None, 7, 1.5, True, [], {}, '', 'nothing', 'x' * 256])
def test_a_value_that_is_not_a_type_matches_no_route(type):
    assert table('A', re.compile('x+')).match(type) is None


def test_finding_an_exact_route_compares_no_more_patterns_among_a_thousand_than_among_ten():
    class CountingStr(str):
        compared = 0

        def __eq__(self, other):
            CountingStr.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    def comparisons(size):
        routes = RouteTable([Route(CountingStr(f'TYPE_{n}'), None) for n in range(size)])
        CountingStr.compared = 0
        # Neither side is the other object, or the dictionary would not have to compare.
        assert routes.match(''.join(['TYPE_', str(size // 2)])) is not None
        assert routes.match('NOTHING') is None
        return CountingStr.compared

    assert comparisons(10) <= 2
    assert comparisons(1000) <= 2


def test_only_regexes_defined_after_an_exact_route_are_tried_for_it():
    class CountingRegex:
        pattern = 'NEVER'
        tried = 0

        def match(self, type):
            CountingRegex.tried += 1

    routes = table(CountingRegex(), 'A', CountingRegex(), CountingRegex())
    routes.match('A')
    assert CountingRegex.tried == 2


@pytest.mark.parametrize(
    'pattern, other, expected',
    [
        ('A', 'A', True),
        ('A', 'B', False),
        ('A', re.compile('A$'), True),
        ('A', re.compile('^A$'), True),
        ('A', re.compile('A'), False),
        ('A', re.compile('^A$', re.IGNORECASE), False),
        (re.compile('A'), 'AB', True),
        (re.compile('B'), 'AB', False),
        (re.compile('^/a'), re.compile('^/a/b/$'), True),
        (re.compile('a|b'), re.compile('a|b'), True),
        (re.compile('.*'), re.compile('a|b'), False),
        (re.compile('a'), re.compile('a', re.IGNORECASE), False),
        (re.compile('a.c'), re.compile(r'a\.c$'), False),
    ],
)
def test_a_pattern_covers_another_as_far_as_it_is_known(pattern, other, expected):
    assert covers(pattern, other) is expected


def test_an_async_function_is_run_to_its_end():
    async def function(socket, content, room):
        return [socket, content, room]

    class Thing:
        async def __call__(self, socket, content):
            return content

        async def method(self, socket):
            return socket

    assert call(function, {'room': 'a'}) == ['SOCKET', 'CONTENT', 'a']
    assert call(Thing()) == 'CONTENT'
    assert call(Thing().method) == 'SOCKET'


@pytest.mark.parametrize(
    'options, words', [({'rate': 5}, '5 frames a second'), ({'rate': '30/m', 'per': 'user'}, '30/m per user')]
)
def test_a_route_has_a_rate(options, words):
    assert str(Route('A', None, **options).rate) == words


@pytest.mark.parametrize(
    'options, word',
    [
        ({'permission': 'bet'}, "'bet'"),
        ({'permission': ['poker.bet', 3]}, '3'),
        ({'form': 'BetForm'}, "'BetForm'"),
        ({'rate': '5/d'}, "'5/d'"),
        ({'rate': '5/s', 'per': 'users'}, "'users'"),
        ({'per': 'user'}, 'has no rate'),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_at_once(options, word):
    with pytest.raises(TypeError, match=word):
        Route('A', None, **options)
