"""A handler class of our own, for every socket that wants to know who else is at its path."""

from sockets import RoutedSocketHandler
from sockets.models import Socket


def name_of(user, session):
    """Return what somebody is called: an account's name, or the name a visitor chose; ``''`` for neither."""
    if user is not None and user.is_authenticated:
        return user.get_username()
    return session.get('name', '')


def name_at(row):
    """Return what the person of the connection ``row`` is called."""
    return name_of(row.user, row.session.get_decoded() if row.session else {}) or 'Guest'


def people_at(path):
    """Return who is at ``path``, once for however many windows: dicts of a name and the id of a connection."""
    people = {}
    for row in Socket.objects.filter(path=path).select_related('user', 'session').order_by('pk'):
        people.setdefault(row.user_id or row.session_id, {'id': row.pk, 'name': name_at(row)})
    return sorted(people.values(), key=lambda person: person['name'].lower())


def windows_of(row):
    """Return all connections at the path of ``row`` of the person whose connection that is."""
    if row.user_id:
        return Socket.objects.filter(path=row.path, user=row.user_id)
    return Socket.objects.filter(path=row.path, user=None, session=row.session_id)


class PresenceHandler(RoutedSocketHandler):
    """Adds ``socket.name`` and the route ``WHO`` to whatever is built on it."""

    routes = (
        *RoutedSocketHandler.routes,
        ('WHO', 'who'),
    )

    @property
    def name(self):
        return name_of(self.user, self.session) or 'Guest'

    def who(self, content):
        # A returned dict is the reply: it carries the ref of the frame that asked.
        return {'type': 'HERE', 'people': people_at(self.path)}
