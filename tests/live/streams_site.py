"""The servers of a test of streams: those of ``soak_site``, with a handler that follows what it is told.

``COUNT``: note each query that reads streams.
"""

import os

from tests.live import stack
from tests.live.soak_site import *  # noqa: F403
from tests.live.soak_site import SOCKETS, note

CHANNEL_LAYERS = stack.channel_layers(
    'tests.live.streams_site.routing', os.environ.get('REDIS_URL', ''), prefix='streams:'
)
SOCKETS = {**SOCKETS, **stack.routed('tests.live.streams_site.routing')}


def count_queries():
    """Note each query of this process that reads streams."""
    from django.db.backends.signals import connection_created

    def count(execute, sql, params, many, context):
        # Not what the housekeeper asks each second, whoever comes.
        if 'IS NULL' not in sql and '_at" <=' not in sql:
            for table in ('streamhead', 'streammessage'):
                if sql.startswith('SELECT ') and f'FROM "sockets_{table}"' in sql:
                    note('query', table)
        return execute(sql, params, many, context)

    def wrap(connection, **kwargs):
        connection.execute_wrappers.append(count)

    connection_created.connect(wrap, weak=False)


def __getattr__(name):
    if name == 'routing':
        from sockets import SocketRouter
        from sockets.routing import route_class

        if 'COUNT' in os.environ:
            count_queries()

        socket = SocketRouter()

        @socket.connect
        def on_open(socket, names):
            for each in names.split('.'):
                socket.follow(each)

        # Asked for more than once.
        globals()[name] = [route_class(socket.Handler, path=r'^/streams/(?P<names>[\w.]+)/$')]
        return globals()[name]
    raise AttributeError(name)
