"""``manage.py sockets doctor``: each part of a site, tried out, and what to do about those that do not work."""

import queue
import threading
import time

from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Q
from django.utils import timezone

from .. import engine, presence
from ..models import Socket
from ..streams import numbering
from .findings import PATIENCE, Finding, milliseconds
from .websocket_probe import examine_socket

# Seconds that a worker may be busy with something else, and until it is known which servers live where heartbeats are counted.
WORKER_PATIENCE = 3
SERVER_PATIENCE = 15


def examine(url=None):
    """Yield a ``Finding`` or more for each part of the site, within seconds, and raise nothing.

    ``url`` is the ``ws://`` or ``wss://`` address of a socket to talk to.
    """
    yield from _try('checks', examine_settings, 'Type: python manage.py check')
    works = []
    for name, examine_it, remedy in (
        ('database', examine_database, "Start the database, or correct DATABASES['default']."),
        ('layer', examine_layer, engine.current().remedies['layer']),
    ):
        found = _try(name, examine_it, remedy)
        works.append(all(finding.ok is not False for finding in found))
        yield from found
    for name, examine_it, can_work, patience in (
        ('worker', examine_workers, works[1], PATIENCE),
        ('server', examine_servers, all(works), SERVER_PATIENCE),
    ):
        yield from _try(name, examine_it, '', patience) if can_work else [Finding(name, None, 'Not tried.')]
    if url is not None:
        yield from _try('websocket', lambda: examine_socket(url), 'Start a server there, or correct the address.')


def examine_settings():
    """Run the system checks."""
    # Some are about production only, as in check --deploy.
    found = [
        message
        for message in run_checks(tags=['sockets'], include_deployment_checks=not settings.DEBUG)
        if not message.is_silenced()
    ]
    return [
        Finding(message.id, False if message.level >= ERROR else None, message.msg, message.hint) for message in found
    ] or [Finding('checks', True, 'Nothing was found.')]


def examine_database():
    """Look whether the tables are there, and count the rows."""
    connection = connections[router.db_for_write(Socket)]
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes('sockets'))
    if missing:
        return [
            Finding(
                'database',
                False,
                'Not migrated: {}.'.format(
                    ', '.join(f'{migration.app_label}.{migration.name}' for migration, _ in missing)
                ),
                'Type: python manage.py migrate',
            )
        ]
    began = time.perf_counter()
    count = Socket.objects.on_primary().count()
    found = [Finding('database', True, f'{connection.vendor} answers in {milliseconds(began)}; {count} connections.')]
    if router.db_for_read(Socket) != connection.alias:
        found.append(
            Finding(
                'database',
                None,
                f"A project's own Socket.objects reads from {router.db_for_read(Socket)!r}, and rows are written "
                f'to {connection.alias!r}.',
                'Write Socket.objects.on_primary() where who has just connected or joined must be found.',
            )
        )
    return found + examine_streams()


def examine_streams():
    """Look whether messages of streams wait for their numbers: until then, nobody gets them."""
    left = numbering.unnumbered()
    count = left.count()
    if not count:
        return []
    waits = timezone.now() - left.order_by('created').values_list('created', flat=True).first()
    return [
        Finding(
            'streams',
            False,
            f'{count} messages wait to be numbered and sent, the oldest for {waits.total_seconds():.0f} s.',
            'Any server does that within seconds: start one. If one runs, its log says what goes wrong.',
        )
    ]


def examine_layer():
    """Send a message through the layer and receive it."""
    return engine.current().examine_layer(PATIENCE)


def examine_workers():
    """Send a message to whichever worker takes it, and wait for its answer."""
    return engine.current().examine_workers(WORKER_PATIENCE)


def examine_servers():
    """Tell the servers that live, and how many connections each holds, and which rows are of servers that do not."""
    rows = dict(Socket.objects.on_primary().order_by().values_list('server').annotate(Count('pk')))
    alive = engine.current().live_servers(list(rows))
    if alive is None:
        return [
            Finding(
                'server',
                None,
                f'Not known on a stock layer; rows name {len(rows)}.',
                'Try one: --url ws://127.0.0.1:8000/path/of/a/page/',
            ),
            *_left_behind(()),
        ]
    return [_of_the_living(rows, alive), *_left_behind(alive)]


def _of_the_living(rows, alive):
    is_local = engine.current().is_local()
    # On a layer in memory, a server of Channels 1 that holds no connection is known to itself only.
    are_all_known = engine.current().knows_idle_servers or not is_local
    if is_local and len(alive) > 1:
        return Finding(
            'server',
            False,
            f'{len(alive)} servers run, and an in-memory layer reaches the connections of one.',
            engine.current().remedies['reach'] + ', or stop all but one.',
        )
    if not alive:
        return Finding(
            'server',
            None if is_local else False,
            'None is running.' if are_all_known else 'None holds a connection.',
            engine.current().remedies['serve'] if are_all_known else '',
        )
    return Finding(
        'server', True, ', '.join(f'{server} ({rows.get(server, 0)} connections)' for server in sorted(alive)) + '.'
    )


def _left_behind(alive):
    """Report rows of servers that are gone, and rows of servers that this layer does not know."""
    name = engine.current().layer_name()
    others = Socket.objects.on_primary().exclude(server__in=alive)
    # One on an in-memory layer that has no lease here may be in another container, and notes in its rows that it lives.
    gone = Q(pk__in=presence.lost().values('pk'))
    if engine.current().is_local():
        gone |= Q(layer=name, server__in=engine.current().dead_servers(presence.servers_of(others.filter(layer=name))))
    elif name:
        gone |= Q(layer=name)
    servers = presence.servers_of(others.filter(gone))
    if servers:
        yield Finding(
            'server',
            False,
            f'{others.filter(gone).count()} rows are of {len(servers)} servers that are gone: they show people who are not connected.',
            'Type: python manage.py sockets purge. Any server removes them as well, within seconds.',
        )
    unheard = others.exclude(gone).exclude(layer=name).exclude(layer=None)
    layers = sorted(unheard.order_by().values_list('layer', flat=True).distinct())
    if layers:
        yield Finding(
            'server',
            None,
            '{} rows are of servers on other layers ({}), of which this one hears nothing.'.format(
                unheard.count(), ', '.join(map(repr, layers))
            ),
            'If nobody runs there any more, delete them in the admin.',
        )


def _try(name, examine_it, remedy, patience=None):
    """Return what ``examine_it`` found: in a thread of its own, because nothing else ends every kind of wait."""
    results = queue.Queue()

    def run():
        try:
            results.put(examine_it())
        except Exception as error:
            results.put([Finding(name, False, f'{type(error).__name__}: {error}', remedy)])
        finally:
            connections.close_all()

    patience = patience or PATIENCE
    threading.Thread(target=run, daemon=True).start()
    try:
        return results.get(timeout=patience)
    except queue.Empty:
        return [Finding(name, False, f'No answer within {patience} s.', remedy)]
