"""What ``manage.py runsockets`` runs: a server in this process, or several processes behind one port."""

import socket
import sys

from channels import DEFAULT_CHANNEL_LAYER, channel_layers
from channels.handler import ViewConsumer
from channels.staticfiles import StaticFilesConsumer
from daphne.access import AccessLogGenerator
from daphne.server import build_endpoint_description_strings
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.utils.version import get_version
from twisted.internet.endpoints import serverFromString

from ... import conf
from .server import Processes, SocketServer, stop_with


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
    listening = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise CommandError(f'Cannot listen on {addrport}: {error.strerror}.')
    listening.listen(1024)
    stdout.write(f'Serving on http://{addrport}/ with {count} processes. Stop with Ctrl-C.')
    program = ['-m', 'django'] if sys.argv[0].endswith('__main__.py') else sys.argv[:1]
    Processes(count, listening, program + sys.argv[1:]).run()


def _run_server(stdout, layer, addrport, threads, page_threads, options):
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
    host, _, port = addrport.rpartition(':')
    if not port.isdecimal() or int(port) > 65535:
        raise CommandError(f'{addrport!r} is not an ADDR:PORT; write 127.0.0.1:8000 or 8000.')
    return host.strip('[]') or '127.0.0.1', int(port)


def _access_log(name):
    if name is None:
        return None
    return AccessLogGenerator(sys.stdout if name == '-' else open(name, 'a', 1))
