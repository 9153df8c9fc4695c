"""Credentials that a client sends: not stored in rows, and found only in the process that holds its connection."""

import functools
import json
import logging
import re
import weakref
from urllib.parse import quote_plus, unquote_plus

from django.conf import settings
from django.http import QueryDict

from .. import conf

logger = logging.getLogger('sockets')

# By channel name, the object that has the connect message of a connection of this process as ``request_info``: daphne's
# protocol.
_held = weakref.WeakValueDictionary()

# Names that have been logged as absent.
_said = set()


def hold(channel_name, holder):
    """Have functions find all that the client sent in ``holder.request_info``, for as long as there is ``holder``."""
    _held[channel_name] = holder


def held(channel_name):
    """Return the connect message of a connection of this process, or ``None``."""
    return getattr(_held.get(channel_name), 'request_info', None)


def is_credential(name):
    """Return whether ``SOCKETS['CREDENTIALS']`` names the header, query parameter or cookie ``name``."""
    names = tuple(conf.CREDENTIALS)
    # Clients send the same names again and again. Long names, which one may make up, must not fill the cache.
    return _matches(names, name) if len(name) < 100 else _matches.__wrapped__(names, name)


@functools.lru_cache(maxsize=1000)
def _matches(names, name):
    return bool(_pattern(names).fullmatch(_normal(name)))


@functools.lru_cache(maxsize=8)
def _pattern(names):
    return re.compile('|'.join(re.escape(_normal(name)).replace(r'\*', '.*') for name in names) or '(?!)', re.DOTALL)


def _normal(name):
    # Headers have hyphens, parameters and cookies have either.
    return name.lower().replace('_', '-')


def strip(content, session_cookie):
    """Return ``content``, a request as plain data, without credentials and the cookie of that name.

    ``dropped`` in it is what was left out: names of ``headers``, ``parameters`` and ``cookies``.
    """
    dropped = {'headers': [], 'parameters': [], 'cookies': []}
    headers = []
    for name, value in content.get('headers') or ():
        if is_credential(name):
            dropped['headers'].append(name.lower())
        elif name.lower() == 'cookie':
            headers.append(
                [
                    name,
                    _strip_list(
                        value,
                        ';',
                        ';',
                        lambda cookie: cookie == session_cookie or is_credential(cookie),
                        dropped['cookies'],
                    ),
                ]
            )
        else:
            headers.append([name, value])
    query_string = _strip_query(content.get('query_string') or '', dropped['parameters'])
    # A row that is stripped again, by a setting that names more, still says what it has lost before.
    for kind, names in dropped.items():
        dropped[kind] = sorted({*names, *(content.get('dropped') or {}).get(kind, ())})
    return {**content, 'headers': headers, 'query_string': query_string, 'dropped': dropped}


def strip_target(target):
    """Return ``target``, a path with its query, without the parameters that are credentials."""
    path, mark, query = target.partition('?')
    return path + mark + _strip_query(query, [])


def _strip_query(query, dropped):
    return _strip_list(query, '[&;]', '&', lambda name: is_credential(unquote_plus(name)), dropped)


def _strip_list(text, separators, separator, is_dropped, dropped):
    """Return ``text``, a list of names and values, without those whose names are dropped; note those."""
    parts = [(part.partition('=')[0].strip(), part) for part in re.split(separators, text)]
    found = [name for name, _ in parts if is_dropped(name)]
    dropped += found
    return separator.join(part for name, part in parts if name not in found) if found else text


def strip_text(text, session_cookie):
    """Return what a row keeps of a request, ``text``, without credentials."""
    try:
        content = json.loads(text)
    except ValueError:
        return ''
    stripped = strip(content, session_cookie)
    return json.dumps(stripped) if any(stripped['dropped'].values()) else text


def redact(text, request):
    """Return ``text``, which may be logged, without the credentials that came with ``request``."""
    values = [value for name in request.GET if is_credential(name) for value in request.GET.getlist(name)]
    values += [
        value for name, value in request.COOKIES.items() if name == settings.SESSION_COOKIE_NAME or is_credential(name)
    ]
    for name, value in request.META.items():
        if name.startswith('HTTP_') and is_credential(name[5:]):
            # "Bearer ...", and lists.
            values += [value, *re.split('[ ,]+', value)]
    # Shorter ones are no secrets, but words. The longest first: another may be in it.
    for value in sorted(filter(lambda value: len(value) >= 8, values), key=len, reverse=True):
        text = text.replace(value, '***').replace(quote_plus(value), '***')
    return text


def note_absent(request, dropped):
    """Have ``request`` say so when a function asks it for what was ``dropped``."""
    parameters = {unquote_plus(name) for name in dropped.get('parameters', ())}
    cookies, headers = set(dropped.get('cookies', ())), set(dropped.get('headers', ()))
    if parameters:
        query = _Query(request.META.get('QUERY_STRING', ''))
        query.absent = parameters
        request.GET = query
    if cookies:
        request.COOKIES = _Plain(request.COOKIES)
        request.COOKIES.what, request.COOKIES.absent = 'COOKIES', cookies
    if headers:
        request.META = _Plain(request.META)
        request.META.what = 'META'
        request.META.absent = {'HTTP_' + name.upper().replace('-', '_') for name in headers}
        if _Headers is not None:
            request.headers = _Headers(request.META)
            request.headers.absent = headers


class _Absent:
    """A mapping that says, once, that a function asked for what is not there any more."""

    what = 'GET'
    absent = frozenset()

    def _look(self, name):
        if name in self.absent and (self.what, name) not in _said:
            _said.add((self.what, name))
            logger.warning(
                "request.%s[%r] is not there: SOCKETS['CREDENTIALS'] keeps it out of the rows, and another process holds "
                'the connection. Read it in the connect function, and keep what follows from it.',
                self.what,
                name,
            )

    def __getitem__(self, name):
        self._look(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self._look(name)
        return super().__contains__(name)

    def get(self, name, default=None):
        self._look(name)
        return super().get(name, default)


class _Plain(_Absent, dict):
    pass


class _Query(_Absent, QueryDict):
    def getlist(self, name, *args):
        self._look(name)
        return super().getlist(name, *args)


try:
    from django.http.request import HttpHeaders
except ImportError:
    # Django before 2.2.
    _Headers = None
else:

    class _Headers(_Absent, HttpHeaders):
        what = 'headers'

        def _look(self, name):
            super()._look(name.lower())
