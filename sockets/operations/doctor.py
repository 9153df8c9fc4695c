"""``manage.py sockets doctor``: each part of a site, tried out, and what to do about those that do not work."""
import base64
import json
import os
import queue
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Q

from .. import engine, messages, presence
from ..models import Socket
from .findings import Finding, milliseconds

# Seconds that a part has to answer, and that a worker may be busy with something else.
PATIENCE = 5
WORKER_PATIENCE = 3

# What our request of a websocket is called.
_REF = 'sockets.doctor'


def examine(url=None):
    """Yield a ``Finding`` or more for each part of the site, within seconds, and raise nothing.

    ``url`` is the ``ws://`` or ``wss://`` address of a socket to talk to.
    """
    yield from _try('checks', examine_settings, 'Type: python manage.py check')
    works = []
    for name, examine_it, remedy in (
            ('database', examine_database, "Start the database, or correct DATABASES['default']."),
            ('layer', examine_layer, "Start Redis, or correct its 'hosts' in CHANNEL_LAYERS.")):
        found = _try(name, examine_it, remedy)
        works.append(all(finding.ok for finding in found))
        yield from found
    for name, examine_it, can_work in (('worker', examine_workers, works[1]), ('server', examine_servers, all(works))):
        yield from _try(name, examine_it, '') if can_work else [Finding(name, None, 'Not tried.')]
    if url is not None:
        yield from _try('websocket', lambda: examine_socket(url), 'Start a server there, or correct the address.')


def examine_settings():
    """Run the system checks."""
    # Some are about production only, as in check --deploy.
    found = [message for message in run_checks(tags=['sockets'], include_deployment_checks=not settings.DEBUG)
             if not message.is_silenced()]
    return [Finding(message.id, False if message.level >= ERROR else None, message.msg, message.hint)
            for message in found] or [Finding('checks', True, 'Nothing was found.')]


def examine_database():
    """Look whether the tables are there, and count the rows."""
    connection = connections[router.db_for_write(Socket)]
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes('sockets'))
    if missing:
        return [Finding('database', False, 'Not migrated: {}.'.format(
            ', '.join('{0.app_label}.{0.name}'.format(migration) for migration, _ in missing)),
            'Type: python manage.py migrate')]
    began = time.perf_counter()
    count = Socket.objects.on_primary().count()
    found = [Finding('database', True, '{} answers in {}; {} connections.'.format(
        connection.vendor, milliseconds(began), count))]
    if router.db_for_read(Socket) != connection.alias:
        found.append(Finding('database', None, "A project's own Socket.objects reads from {!r}, and rows are written "
                             'to {!r}.'.format(router.db_for_read(Socket), connection.alias),
                             'Write Socket.objects.on_primary() where who has just connected or joined must be found.'))
    return found


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
        return [Finding('server', None, 'Not known on a stock layer; rows name {}.'.format(len(rows)),
                        'Try one: --url ws://127.0.0.1:8000/path/of/a/page/'), *_left_behind(())]
    return [_of_the_living(rows, alive), *_left_behind(alive)]


def _of_the_living(rows, alive):
    is_local = engine.current().is_local()
    if is_local and len(alive) > 1:
        return Finding('server', False, '{} processes hold connections, and an in-memory layer reaches one.'.format(
            len(alive)), "Set 'BACKEND': 'sockets.layers.RedisChannelLayer', or stop all but one.")
    if not alive:
        return Finding('server', None if is_local else False,
                       'None holds a connection.' if is_local else 'None is running.',
                       '' if is_local else 'Type: python manage.py runsockets')
    return Finding('server', True, ', '.join(
        '{} ({} connections)'.format(server, rows.get(server, 0)) for server in sorted(alive)) + '.')


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
        yield Finding('server', False, '{} rows are of {} servers that are gone: they show people who are not connected.'
                      .format(others.filter(gone).count(), len(servers)),
                      'Type: python manage.py sockets purge. Any server removes them as well, within seconds.')
    unheard = others.exclude(gone).exclude(layer=name).exclude(layer=None)
    layers = sorted(unheard.order_by().values_list('layer', flat=True).distinct())
    if layers:
        yield Finding('server', None, '{} rows are of servers on other layers ({}), of which this one hears nothing.'
                      .format(unheard.count(), ', '.join(map(repr, layers))),
                      'If nobody runs there any more, delete them in the admin.')


def examine_socket(url):
    """Open a websocket as a page of the same host would, and say HELLO."""
    parts = urlsplit(url)
    if parts.scheme not in ('ws', 'wss') or not parts.hostname:
        return [Finding('websocket', False, '{!r} is not the address of a websocket.'.format(url),
                        'Write ws://127.0.0.1:8000/path/of/a/page/.')]
    began = time.perf_counter()
    with _open(parts) as file:
        status = _shake_hands(file, parts)
        if status == 403:
            return [Finding('websocket', False, '{} is refused with HTTP 403.'.format(url),
                            'Add its path to the ROUTING, or {!r} to ALLOWED_HOSTS; the log of the worker says which.'
                            .format(parts.hostname))]
        if status != 101:
            return [Finding('websocket', False, '{} answers with HTTP {}, as a page would.'.format(url, status),
                            'Correct the path, or let the proxy pass Upgrade on.')]
        code = _say_hello(file)
    took = milliseconds(began)
    if code == messages.CLOSE_LOGIN_REQUIRED:
        return [Finding('websocket', True, '{} asks for a login, in {}.'.format(url, took))]
    if code is not None:
        return [Finding('websocket', False, '{} closes with {} before it answers.'.format(url, code),
                        'The log of the worker says why.')]
    return [Finding('websocket', True, '{} answers in {}.'.format(url, took))]


def _try(name, examine_it, remedy):
    """Return what ``examine_it`` found: in a thread of its own, because nothing else ends every kind of wait."""
    results = queue.Queue()

    def run():
        try:
            results.put(examine_it())
        except Exception as error:
            results.put([Finding(name, False, '{}: {}'.format(type(error).__name__, error), remedy)])
        finally:
            connections.close_all()
    threading.Thread(target=run, daemon=True).start()
    try:
        return results.get(timeout=PATIENCE)
    except queue.Empty:
        return [Finding(name, False, 'No answer within {} s.'.format(PATIENCE), remedy)]


# As much of a websocket client as one HELLO takes (RFC 6455). autobahn's needs Twisted's reactor, which runs once.

def _open(parts):
    connection = socket.create_connection(
        (parts.hostname, parts.port or (443 if parts.scheme == 'wss' else 80)), PATIENCE)
    if parts.scheme == 'wss':
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    # The file keeps it open.
    with connection:
        return connection.makefile('rwb')


def _shake_hands(file, parts):
    """Ask for a websocket and return the HTTP status of the answer: 101 if we have it."""
    # Not geturl(), which takes what begins with // for a host.
    path = (parts.path or '/') + ('?' + parts.query if parts.query else '')
    host = parts.netloc.rpartition('@')[2]
    file.write('GET {} HTTP/1.1\r\nHost: {}\r\nOrigin: {}://{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
               'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n'.format(
                   path, host, 'https' if parts.scheme == 'wss' else 'http', host,
                   base64.b64encode(os.urandom(16)).decode()).encode())
    file.flush()
    protocol, status, *_ = (file.readline() + b' ').split(b' ', 2)
    if not protocol.startswith(b'HTTP/'):
        raise ConnectionError('It does not speak HTTP.')
    while file.readline().strip():
        pass
    return int(status)


def _say_hello(file):
    """Wait for the one frame that answers ours; return ``None``, or the close code that came instead of it."""
    _write(file, 0x81, json.dumps({messages.TYPE: messages.HELLO, messages.REF: _REF}).encode())
    while True:
        opcode, payload = _read(file)
        if opcode == 0x88:
            return int.from_bytes(payload[:2], 'big')
        if opcode == 0x81 and json.loads(payload.decode()).get(messages.REF) == _REF:
            _write(file, 0x88, (1000).to_bytes(2, 'big'))
            return None


def _write(file, opcode, payload):
    # Of less than 126 bytes. A mask of zeros leaves it as it is.
    file.write(bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload)
    file.flush()


def _read(file):
    opcode, size = _take(file, 2)
    if size > 125:
        size = int.from_bytes(_take(file, 2 if size == 126 else 8), 'big')
    return opcode, _take(file, size)


def _take(file, size):
    data = file.read(size)
    if len(data) < size:
        raise ConnectionError('It has closed the connection.')
    return data
