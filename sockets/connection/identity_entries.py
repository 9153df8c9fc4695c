"""The row, user and session of a connection, as they are kept."""

import functools
import time

from django.core.exceptions import ValidationError

from ..access import auth
from . import copies

# What every identity depends on: which permissions groups have.
PERMISSIONS = 'permissions'

# What Django's backends keep on a user. They are sets of names.
_CACHES = '_perm_cache', '_user_perm_cache', '_group_perm_cache'


class Entry:
    """The row and the user of one connection as they were read ``since`` then, a time of ``time.monotonic()``."""

    __slots__ = (
        'since',
        'deferred',
        'is_used',
        'channel_name',
        'keys',
        'session_key',
        'expires',
        'permissions',
        '_row',
        '_user',
        '_session',
    )

    def __init__(self, row, since, deferred=(), users=None):
        """Keep ``row``, loaded with its user and session, but without the columns ``deferred``. ``TypeError`` if one of
        them cannot be copied. What is read of permissions is shared by all that are made with the dict ``users``.
        """
        self.since, self.deferred, self.is_used = since, deferred, False
        self.channel_name = row.channel_name
        self._row = copies.original(row)
        self._user = None if row.user_id is None else copies.original(row.user)
        self._session = None if row.session_id is None else copies.original(row.session)
        self.permissions = ({} if users is None else users).setdefault(row.user_id, Permissions())
        self.session_key = row.session_id
        self.expires = auth.expires(row)
        self.keys = frozenset(
            [
                PERMISSIONS,
                *keys_of(row),
                *([] if row.user_id is None else keys_of(row.user)),
                *([] if row.session_id is None else keys_of(row.session)),
            ]
        )

    def has_expired(self):
        """Whether its right is over, as far as is known here: a page may have prolonged the session."""
        return self.expires is not None and self.expires < time.time()

    def row(self, user):
        """Return a copy of the row, with ``user`` as its user."""
        row = self._row.copy()
        if self._user is not None:
            _set_related(row, 'user', user)
        if self._session is not None:
            _set_related(row, 'session', self._session.copy())
        return row

    def user(self):
        """Return a copy of the user, an ``AnonymousUser`` if there is none."""
        if self._user is None:
            return auth.anonymous()
        user = self._user.copy()
        for name, value in self.permissions.caches:
            setattr(user, name, set(value))
        return user

    def note_permissions(self, user):
        """Keep what a backend has read of the permissions of ``user``, a copy, unless somebody has changed that."""
        if self._user is None or self.permissions.knows(user):
            return
        original = vars(self._user.copy())
        if all(vars(user).get(name) == value for name, value in original.items() if name != '_state'):
            self.permissions.note(user)


class Permissions:
    """What was read of the permissions of a user. ``allowed``: whether it has these, by their names."""

    __slots__ = ('allowed', 'caches')

    def __init__(self):
        self.allowed = {}
        # Pairs of a name and a frozenset.
        self.caches = ()

    def knows(self, user):
        """Whether there is nothing to note of ``user``."""
        known = [name for name, _ in self.caches]
        return len(known) == len(_CACHES) or all(name in known or name not in vars(user) for name in _CACHES)

    def note(self, user):
        """Keep what a backend has read of ``user``."""
        self.caches = tuple((name, frozenset(vars(user)[name])) for name in _CACHES if name in vars(user))


def _set_related(row, name, value):
    field = row._meta.get_field(name)
    if hasattr(field, 'set_cached_value'):
        field.set_cached_value(row, value)
    else:
        setattr(row, copies.cache_name(field), value)


def keys_of(instance):
    """Return the names of ``instance``, and of those of its parents, under which its identities are found."""
    keys = []
    for model in tables(type(instance)):
        pk = model._meta.pk
        value = getattr(instance, pk.attname)
        try:
            value = pk.to_python(value)
        except ValidationError:
            pass
        keys.append((model._meta.label, value))
    return keys


@functools.lru_cache(maxsize=None)
def tables(model):
    """Return the models whose tables an instance of ``model`` is written to: a proxy has none of its own."""
    return tuple(dict.fromkeys(parent._meta.concrete_model for parent in (model, *model._meta.get_parent_list())))
