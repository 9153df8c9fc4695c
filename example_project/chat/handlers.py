"""A handler class of our own, for every socket that wants to know who else is at its path."""
from sockets import RoutedSocketHandler
from sockets.models import Socket


def name_of(user, session):
    """Return what somebody is called: an account's name, or the name a visitor chose; ``''`` for neither."""
    if user is not None and user.is_authenticated:
        return user.get_username()
    return session.get('name', '')


def people_at(path):
    """Return the names of those who are at ``path``: one for each connection, so a second tab counts twice."""
    here = Socket.objects.filter(path=path, active=True).select_related('user', 'session')
    return [name_of(row.user, row.session.get_decoded() if row.session else {}) or 'Guest' for row in here]


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
        return {'type': 'HERE', 'people': sorted(set(people_at(self.path)))}
