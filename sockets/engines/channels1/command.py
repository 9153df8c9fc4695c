"""What ``manage.py runsockets`` runs: a server in this process, or several processes behind one port."""

import argparse
import socket
import sys

from channels import DEFAULT_CHANNEL_LAYER, channel_layers
from channels.handler import ViewConsumer
from channels.staticfiles import StaticFilesConsumer
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.utils.version import get_version

from ... import conf
from ...execution import processes as several


def add_arguments(parser):
    """Add the options of the command to ``parser``."""
    parser.add_argument(
        'addrport',
        nargs='?',
        default='127.0.0.1:8000',
        metavar='ADDR:PORT',
        help='where to listen, 127.0.0.1:8000 if not given; [::1]:8000 for IPv6',
    )
    parser.add_argument('--processes', type=int, default=1, help='how many processes share the port')
    parser.add_argument('--threads', type=int, default=2, help='threads for frames, in each process')
    parser.add_argument(
        '--connect-threads', type=int, default=2, help='threads for clients that want to connect, in each process'
    )
    parser.add_argument('--page-threads', type=int, default=4, help='threads for HTTP requests, in each process')
    parser.add_argument('-u', '--unix-socket', help='listen on a unix socket instead')
    parser.add_argument(
        '-e',
        '--endpoint',
        action='append',
        dest='endpoints',
        default=[],
        help='listen on a Twisted endpoint instead, such as ssl:443:privateKey=key.pem',
    )
    parser.add_argument('--fd', type=int, dest='file_descriptor', help='listen on an inherited socket instead')
    parser.add_argument('--parent', type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        '--http-timeout',
        type=int,
        default=120,
        help='seconds until a page begins, and for which its client may read nothing',
    )
    parser.add_argument('--websocket-timeout', type=int, help='seconds that a websocket may stay open')
    parser.add_argument(
        '--websocket-connect-timeout',
        type=int,
        default=20,
        help='seconds that a websocket may wait to be accepted, before it is answered with 403',
    )
    parser.add_argument(
        '--websocket-handshake-timeout',
        type=int,
        default=5,
        help="seconds from a client's connect to its being accepted, before it is reset",
    )
    parser.add_argument('--ping-interval', type=int, default=20, help='seconds of silence before a ping')
    parser.add_argument('--ping-timeout', type=int, default=30, help='seconds to wait for its answer')
    parser.add_argument('--ws-protocol', action='append', dest='ws_protocols', help='a subprotocol to accept')
    parser.add_argument('--root-path', default='', help='the path that a proxy took away')
    parser.add_argument(
        '--proxy-headers',
        action='store_true',
        help='believe X-Forwarded-For of anyone; SOCKETS["TRUSTED_PROXIES"] is safer, and excludes this',
    )
    parser.add_argument('--access-log', metavar='FILE', help='where to write the access log, - for stdout')


def run(stdout, addrport, processes, threads, page_threads, **options):
    """Serve until SIGTERM or SIGINT, as the options say; ``CommandError`` for those that cannot be."""
    if min(processes, threads, page_threads, options['connect_threads']) < 1:
        raise CommandError('--processes, --threads, --connect-threads and --page-threads are 1 or more.')
    if options['proxy_headers'] and conf.TRUSTED_PROXIES:
        raise CommandError(
            "--proxy-headers believes anyone, so that SOCKETS['TRUSTED_PROXIES'] would be asked about "
            'an address which the client made up. Leave out --proxy-headers.'
        )
    layer = channel_layers[DEFAULT_CHANNEL_LAYER]
    # A child has its parent's options.
    if processes > 1 and not options['parent']:
        if layer.local_only():
            raise CommandError(
                'Several processes cannot share the in-memory layer. Use --processes 1, or the '
                "BACKEND 'sockets.layers.RedisChannelLayer'."
            )
        if options['unix_socket'] or options['endpoints']:
            raise CommandError('--processes shares one ADDR:PORT; leave out --unix-socket and --endpoint.')
        return _run_processes(stdout, addrport, processes)
    _run_server(stdout, layer, addrport, threads, page_threads, options)


def _run_processes(stdout, addrport, count):
    host, port = _address(addrport)
    try:
        listening = several.listen(host, port)
    except OSError as error:
        raise CommandError(f'Cannot listen on {addrport}: {error.strerror}.')
    stdout.write(f'Serving on http://{addrport}/ with {count} processes. Stop with Ctrl-C.')
    several.Processes(count, listening, several.program()).run()


def _run_server(stdout, layer, addrport, threads, page_threads, options):
    # Imported late: they choose the reactor of this process.
    from daphne.server import build_endpoint_description_strings
    from twisted.internet.endpoints import serverFromString

    from .server import SocketServer, stop_with

    endpoints = options['endpoints'] + build_endpoint_description_strings(unix_socket=options['unix_socket'])
    listening = None
    if options['file_descriptor'] is not None:
        listening = socket.socket(fileno=options['file_descriptor'])
        endpoints = ['fd']
    elif not endpoints:
        host, port = _address(addrport)
        endpoints = build_endpoint_description_strings(host=host, port=port)
    for endpoint in endpoints if listening is None else ():
        try:
            serverFromString(None, endpoint)
        except Exception as error:
            raise CommandError(f'{endpoint!r} is not an endpoint of Twisted: {error}')
    has_static = settings.DEBUG and apps.is_installed('django.contrib.staticfiles')
    layer.router.check_default(http_consumer=StaticFilesConsumer() if has_static else ViewConsumer())
    forwarded = options['proxy_headers']
    server = SocketServer(
        layer,
        threads,
        page_threads,
        listening,
        connect_threads=options['connect_threads'],
        endpoints=endpoints,
        action_logger=_access_log(options['access_log']),
        http_timeout=options['http_timeout'],
        websocket_timeout=options['websocket_timeout'],
        websocket_connect_timeout=options['websocket_connect_timeout'],
        websocket_handshake_timeout=options['websocket_handshake_timeout'],
        ping_interval=options['ping_interval'],
        ping_timeout=options['ping_timeout'],
        ws_protocols=options['ws_protocols'],
        # As runserver does.
        root_path=options['root_path'] or settings.FORCE_SCRIPT_NAME or '',
        proxy_forwarded_address_header='X-Forwarded-For' if forwarded else None,
        proxy_forwarded_port_header='X-Forwarded-Port' if forwarded else None,
        proxy_forwarded_proto_header='X-Forwarded-Proto' if forwarded else None,
    )
    from twisted.internet import reactor

    if options['parent']:
        reactor.callWhenRunning(stop_with, options['parent'])
    else:
        where = (
            f'http://{addrport}/' if not options['endpoints'] and not options['unix_socket'] else ', '.join(endpoints)
        )
        reactor.callWhenRunning(
            lambda: server.failure or stdout.write(f'Serving on {where} (Django {get_version()}). Stop with Ctrl-C.')
        )
    try:
        server.run()
    except OSError as error:
        raise CommandError(str(error))


def _address(addrport):
    try:
        return several.address(addrport)
    except ValueError as error:
        raise CommandError(str(error))


def _access_log(name):
    if name is None:
        return None
    from daphne.access import AccessLogGenerator

    return AccessLogGenerator(sys.stdout if name == '-' else open(name, 'a', 1))
