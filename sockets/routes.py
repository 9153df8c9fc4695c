"""Which function answers which type."""

import inspect
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Pattern,
    Sequence,
    Set,
    Tuple,
    Type,
    Union,
)

from .declaration import forms
from .execution import coroutines
from .rates import CONNECTION, Rate

if TYPE_CHECKING:
    from typing import Literal

    from .handlers import RoutedSocketHandler

    # What types are compared with; who may send them; and of whom a rate is counted.
    RoutePattern = Union[str, Pattern[str], Type[bytes]]
    Permission = Union[str, Sequence[str], Set[str], None]
    Per = Literal['connection', 'user']
    # A class of forms, serializers or models, or a function.
    Form = Optional[Callable[..., Any]]
    Sends = Dict[str, Form]

# The longest type that is routed, in characters: a name, not a payload to run regexes over.
MAX_TYPE_LENGTH = 255

# A regex that matches one text only.
_LITERAL = re.compile(r'\^?([^\\^$.|?*+(){}[\]]+)\$$')

# What a function asks for that is read from the database.
_WHO = frozenset(['row', 'socket', 'user', 'session', 'request', 'rooms'])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Function:
    """A user's function, called with those of its documented arguments that it names.

    ``argument`` is what its second argument is called: ``'content'`` or ``'message'``. The first is always the
    socket. The second gets the content under any name that is not a URL keyword argument; every other parameter
    is filled from the URL by name. A signature that can never be called that way raises ``TypeError`` at once. An
    ``async def`` is run to its end; one behind a decorator that is not ``async`` raises ``TypeError``, too.
    """

    __slots__ = (
        'function',
        'argument',
        'is_async',
        'asks_who',
        'first',
        'required',
        '_by_name',
        '_second',
        '_names',
        '_var_keyword',
    )

    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.function = function
        self.argument = argument
        name = getattr(function, '__qualname__', repr(function))
        if not callable(function):
            raise TypeError(f'{function!r} is not a function.')
        coroutines.check(function)
        self.is_async = coroutines.is_async(function)
        # Whether it asks who its client is, as far as is known: one that leaves it to others is noticed when it does.
        self.asks_who = coroutines.mentions(function, _WHO)
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:
            raise TypeError(f'{name}() does not tell its signature; wrap it in a function.')
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        variable = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if not positional and not variable:
            raise TypeError(f'{name}() takes no argument; its first is the socket.')
        # What the socket is called.
        self.first = positional[0].name if positional else None
        for parameter in positional[2:]:
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
                raise TypeError(
                    f'{name}() needs {parameter.name!r} by position, but only the socket and the {argument} are given so.'
                )
        nameable = [p for p in positional[1:] if p.kind is not p.POSITIONAL_ONLY]
        nameable += [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        self._names = {p.name for p in nameable}
        self._var_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._by_name = argument in self._names
        self._second: Optional[str] = None
        if self._by_name:
            # Positions are faster than names, and this is every frame.
            if positional[1:] and positional[1].name == argument:
                self._by_name, self._second = False, argument
        elif positional[1:] and (
            positional[1].default is inspect.Parameter.empty or positional[1].kind is inspect.Parameter.POSITIONAL_ONLY
        ):
            self._second = positional[1].name
        elif variable and len(positional) < 2:
            self._second = '*'
        self._names.discard(argument)
        self.required = {p.name for p in nameable if p.default is p.empty} - {argument}

    def missing(self, names: Iterable[str]) -> List[str]:
        """Return the parameters that a URL with the keyword arguments ``names`` leaves empty."""
        return sorted(self.required - set(names) - {self._second})

    def __call__(self, socket: 'RoutedSocketHandler', value: Any, kwargs: Dict[str, Any]) -> Any:
        """Call the function for ``socket`` with the content or message ``value`` and the URL's ``kwargs``."""
        return coroutines.settle(self.call(socket, value, kwargs))

    def call(self, socket: 'RoutedSocketHandler', value: Any, kwargs: Dict[str, Any]) -> Any:
        """Call the function and return what it returned, which of an ``async def`` is a coroutine."""
        named = {k: v for k, v in kwargs.items() if k in self._names or self._var_keyword} if kwargs else {}
        if self._by_name:
            named[self.argument] = value
        elif self._second is not None and (self._second == self.argument or self._second not in kwargs):
            named.pop(self.argument, None)
            return self.function(socket, value, **named)
        return self.function(socket, **named)


class Route:
    """A pattern and the function that answers it.

    ``pattern`` is a ``str`` (the type equals it) or a compiled regex (``.match``, from the start). ``rate`` is how many
    contents of one connection it takes: a number a second, or a text like ``'5/s'``, ``'30/m'`` or ``'100/h'``: so many
    at once, refilled over the unit. With ``per='user'``, those of all connections of a user are counted together.
    ``form`` validates the content (``sockets.contracts.clean``), and the function gets what it makes of it.
    ``login_required`` and ``permission``, a name like ``'poker.bet'`` or several, say who may send it. ``TypeError``
    for anything else. The pattern ``bytes``, the class, is for binary frames, of which the function gets the ``data``;
    their ``form`` is a function. ``inline`` says that the function, a ``def``, never waits: on Channels 4 it runs
    on the event loop, where the ORM raises and nobody else is served meanwhile.
    """

    __slots__ = (
        'pattern',
        'function',
        'rate',
        'form',
        'asks',
        'login_required',
        'permissions',
        'has_contract',
        'inline',
    )

    def __init__(
        self,
        pattern: 'RoutePattern',
        function: Union[str, Callable[..., Any], None],
        rate: Union[float, str, None] = None,
        form: 'Form' = None,
        login_required: bool = False,
        permission: 'Permission' = (),
        per: 'Per' = CONNECTION,
        inline: bool = False,
    ) -> None:
        is_regex = hasattr(pattern, 'match') and isinstance(getattr(pattern, 'pattern', None), str)
        if not is_regex and not isinstance(pattern, str) and pattern is not bytes:
            raise TypeError(
                f"A route's pattern is a str or a compiled regex of str, not {pattern!r}; write @socket.route('TYPE')."
            )
        if pattern == '':
            raise TypeError("A route's pattern is a type, and a type is not empty.")
        if isinstance(pattern, str) and len(pattern) > MAX_TYPE_LENGTH:
            raise TypeError(f'A type has at most {MAX_TYPE_LENGTH} characters, {pattern:.20}... has {len(pattern)}.')
        if not (form is None or callable(form)):
            raise TypeError(f"A route's form is a class of forms, or a function of the content, not {form!r}.")
        if pattern is bytes and any(hasattr(form, name) for name in ('is_valid', 'model_validate', 'parse_obj')):
            raise TypeError(f'Binary frames have no fields for {form!r}; their form is a function of the data.')
        self.pattern: Any = pattern
        self.function: Any = function
        if rate is None and per != CONNECTION:
            raise TypeError(f'per={per!r} says how a rate is counted, and this route has no rate.')
        self.rate = None if rate is None else Rate(rate, per)
        forms.check(form)
        self.form = form
        self.asks = forms.asks_for(form)
        self.login_required = bool(login_required)
        self.inline = bool(inline)
        self.permissions = permission_names(permission)
        self.has_contract = bool(form is not None or self.login_required or self.permissions)

    @property
    def counts_users(self) -> bool:
        """Whether the rate is of a user, who has to be known."""
        return self.rate is not None and self.rate.per != CONNECTION

    @property
    def argument(self) -> str:
        """What the second argument of its function is called."""
        return 'data' if self.pattern is bytes else 'content'

    @property
    def name(self) -> str:
        """The pattern as text; ``'(bytes)'`` for binary frames."""
        return '(bytes)' if self.pattern is bytes else getattr(self.pattern, 'pattern', self.pattern)

    def __repr__(self) -> str:
        function = getattr(self.function, 'function', self.function)
        return '<Route {!r} -> {}>'.format(self.name, getattr(function, '__qualname__', function))


def permission_names(value: 'Permission') -> Tuple[str, ...]:
    """Return the ``permission`` of a route or handler class as a tuple of names; ``TypeError`` for anything else."""
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list, set, frozenset)):
        raise TypeError(f"A permission is a name like 'app.may_do_this', not {value!r}.")
    for name in names:
        if not isinstance(name, str) or not all(name.partition('.')[::2]):
            raise TypeError(f"A permission is a name like 'app.may_do_this', not {name!r}.")
    return tuple(names)


def covers(pattern: Any, other: Any) -> bool:
    """Whether ``pattern`` matches all that ``other`` does, as far as that can be told.

    It can when both are the same, and when ``other`` matches one text only: a ``str``, or a regex like ``^/page/$``.
    """
    if pattern == other:
        return True
    if bytes in (pattern, other):
        return False
    if not isinstance(other, str):
        literal = _LITERAL.match(other.pattern)
        if literal is None or other.flags != _LITERAL.flags:
            return False
        other = literal.group(1)
    return pattern == other if isinstance(pattern, str) else bool(pattern.match(other))


def check_declaration(name: str, sends: Any) -> None:
    """``TypeError`` unless ``sends``, called ``name``, is a dict of types and forms."""
    if not isinstance(sends, dict):
        raise TypeError(f"{name} is a dict like {{'SAID': SaidForm}}, not {sends!r:.100}.")
    for type, form in sends.items():
        if not isinstance(type, str) or not type:
            raise TypeError(f'{name} has the key {type!r:.100}; its keys are types, and a type is a str.')
        if not (form is None or callable(form)):
            raise TypeError(
                f'{name}[{type!r}] is a class of forms, a function of the fields, or None for any fields, '
                f'not {form!r:.100}.'
            )
        forms.check(form)


class RouteTable:
    """Routes in order of definition; the last one that matches a type wins.

    A type that an exact route names costs one dictionary look-up, however many exact routes there are, plus one
    match per regex that was defined after it. ``binary`` is the route of binary frames, ``None`` if there is none.
    """

    def __init__(
        self, routes: Iterable[Route] = (), binary: Optional[Route] = None, built_in: Iterable[Route] = ()
    ) -> None:
        self._routes = [route for route in routes if route.pattern is not bytes]
        self.binary = binary
        self._exact: Dict[Any, Tuple[int, Route]] = {}
        self._regexes: List[Tuple[int, Route]] = []
        self.has_rates = any(route.rate is not None for route in (*self._routes, *([binary] if binary else [])))
        for rank, route in enumerate(self._routes):
            if isinstance(route.pattern, str):
                self._exact[route.pattern] = (rank, route)
            else:
                self._regexes.insert(0, (rank, route))
        # No regex takes their place, which may match anything. An exact one does.
        for route in built_in:
            self._exact.setdefault(route.pattern, (len(self._routes), route))

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def match(self, type: Any) -> Optional[Route]:
        """Return the ``Route`` for ``type``, or ``None``: also if it is not a ``str``, or too long for a name."""
        if not isinstance(type, str) or len(type) > MAX_TYPE_LENGTH:
            return None
        exact_rank, exact = self._exact.get(type, (-1, None))
        for rank, route in self._regexes:
            if rank < exact_rank:
                break
            if route.pattern.match(type):
                return route
        return exact
