"""Who is behind a connection: its row, user and session, and whether they still hold."""
from .. import databases
from ..access import auth
from ..exceptions import ConnectionRevoked, RowMissing

_NOT_LOADED = object()

# What is not loaded with the row: it is long, and few functions look at it.
DEFERRED = 'handshake',


class Identity:
    """Row, user and session of the connection ``name``, loaded in one query when one of them is first asked for.

    Once ``must_hold`` is set, asking raises ``ConnectionRevoked`` if they no longer do.
    """

    __slots__ = ('name', 'deferred', 'must_hold', '_row', '_user', '_session')

    def __init__(self, name, deferred=DEFERRED, row=_NOT_LOADED):
        self.name = name
        self.deferred = deferred
        self.must_hold = False
        self._row = row
        self._user = self._session = None
        if row is not _NOT_LOADED:
            self._adopt(row)

    @classmethod
    def of_cookie(cls, name, key):
        """Return that of a new connection, which has no row, and whose session cookie is ``key``."""
        identity = cls(name)
        identity._row = None
        with databases.on_primary():
            identity._session = auth.session_from_cookie(key)
            identity._user = auth.user_of(identity._session)
        return identity

    @property
    def row(self):
        """The row; ``None`` before there is one, and once it is gone."""
        self._load()
        return self._row

    @row.setter
    def row(self, row):
        self._row = row

    @property
    def user(self):
        """The user, an ``AnonymousUser`` where nobody is logged in."""
        self._load()
        return self._user

    @property
    def session(self):
        """The session, an empty one where there is none."""
        self._load()
        return self._session

    def save_session(self):
        """Save the session if it was changed, as Django's session middleware would."""
        if self._session is None or not self._session.modified or not self._session.session_key:
            return
        from django.contrib.sessions.backends.base import UpdateError
        try:
            self._session.save()
        except UpdateError:
            raise ConnectionRevoked()

    def _load(self):
        if self._row is _NOT_LOADED:
            from ..models import Socket
            row = Socket.objects.select_related('user', 'session').on_primary().defer(
                *self.deferred).filter(channel_name=self.name).first()
            self._adopt(row)
            self._row = row
        if self.must_hold:
            if self._row is None:
                raise RowMissing()
            auth.check_still_valid(self._row, self._session)

    def _adopt(self, row):
        session = None if row is None else row.session
        self._user = row.user if row is not None and row.user_id is not None else auth.anonymous()
        self._session = auth.session_store() if session is None else auth.session_store(
            session.session_key, session.get_decoded())
