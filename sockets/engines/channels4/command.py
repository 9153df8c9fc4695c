"""What ``manage.py runsockets`` runs: uvicorn, or daphne where there is no uvicorn, in one process or in several."""

import argparse
import importlib.util
import logging
import socket
import sys

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.management.base import CommandError
from django.utils.module_loading import import_string
from django.utils.version import get_version

from ... import conf
from ...execution import processes as several
from . import layer

# Seconds after which a thread that computes lets another one go on. With the 5 ms of Python itself, frames of others waited
# for 100 ms while thousands connected.
SWITCH_INTERVAL = 0.001


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
    parser.add_argument(
        '--threads', type=int, help="threads for frames, in each process; SOCKETS['THREADS'] if it is not given"
    )
    parser.add_argument(
        '--connect-threads',
        type=int,
        default=2,
        help='threads for clients that connect or have left, in each process',
    )
    parser.add_argument('-u', '--unix-socket', help='listen on a unix socket instead')
    parser.add_argument('--fd', type=int, dest='file_descriptor', help='listen on an inherited socket instead')
    parser.add_argument('--parent', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--ping-interval', type=int, default=20, help='seconds between two pings')
    parser.add_argument('--ping-timeout', type=int, default=30, help='seconds to wait for the answer')
    parser.add_argument('--root-path', default='', help='the path that a proxy took away')
    parser.add_argument(
        '--proxy-headers',
        action='store_true',
        help='believe X-Forwarded-For of anyone; SOCKETS["TRUSTED_PROXIES"] is safer, and excludes this',
    )
    parser.add_argument('--access-log', metavar='FILE', help='where to write the access log, - for stdout')


def run(stdout, addrport, processes, threads, connect_threads, **options):
    """Serve until SIGTERM or SIGINT, as the options say; ``CommandError`` for those that cannot be."""
    if min(processes, threads or 1, connect_threads) < 1 or threads == 0:
        raise CommandError('--processes, --threads and --connect-threads are 1 or more.')
    if options['proxy_headers'] and conf.TRUSTED_PROXIES:
        raise CommandError(
            "--proxy-headers believes anyone, so that SOCKETS['TRUSTED_PROXIES'] would be asked about "
            'an address which the client made up. Leave out --proxy-headers.'
        )
    has_uvicorn = importlib.util.find_spec('uvicorn') is not None
    if not has_uvicorn and importlib.util.find_spec('daphne') is None:
        raise CommandError('There is no server to run: type "python -m pip install \'uvicorn[standard]\'".')
    try:
        address = several.address(addrport)
    except ValueError as error:
        raise CommandError(str(error))
    # A child has its parent's options.
    if processes > 1 and not options['parent']:
        if layer.is_local():
            raise CommandError(
                'Several processes cannot share the in-memory layer. Use --processes 1, or a channel layer between '
                "processes, such as the BACKEND 'channels_redis.core.RedisChannelLayer'."
            )
        if options['unix_socket']:
            raise CommandError('--processes shares one ADDR:PORT; leave out --unix-socket.')
        listening = _listen(addrport, *address)
        stdout.write(f'Serving on http://{addrport}/ with {processes} processes. Stop with Ctrl-C.')
        return several.Processes(processes, listening, several.program()).run()
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
    options['where'] = options['unix_socket'] or f'http://{addrport}/'
    application = _application()
    if has_uvicorn:
        _run_uvicorn(application, stdout, addrport, address, threads, connect_threads, options)
    else:
        from . import daphne

        daphne.run(application, stdout, address, threads, connect_threads, options)


def _run_uvicorn(application, stdout, addrport, address, threads, connect_threads, options):
    from uvicorn import Config

    from .uvicorn import make_server

    if options['file_descriptor'] is not None:
        sockets = [socket.socket(fileno=options['file_descriptor'])]
    elif options['unix_socket']:
        sockets = None
    else:
        sockets = [_listen(addrport, *address)]
    has_log = _log_access(options['access_log'])
    config = Config(
        application,
        uds=options['unix_socket'],
        # A frame over the limit gets an ERROR, one far over it is not even read.
        ws_max_size=4 * max(conf.MAX_MESSAGE_SIZE, conf.MAX_BINARY_SIZE or 0),
        ws_ping_interval=options['ping_interval'],
        ws_ping_timeout=options['ping_timeout'],
        # It costs memory for each connection, and time for each frame.
        ws_per_message_deflate=False,
        # The project's own LOGGING holds.
        log_config=None,
        access_log=has_log,
        proxy_headers=options['proxy_headers'],
        forwarded_allow_ips='*' if options['proxy_headers'] else None,
        server_header=False,
        # As runserver does.
        root_path=options['root_path'] or settings.FORCE_SCRIPT_NAME or '',
    )
    config.load()
    if config.ws_protocol_class is None:
        raise CommandError('uvicorn has no library for websockets: type "python -m pip install \'uvicorn[standard]\'".')
    server = make_server(config, None if options['parent'] else stdout, threads, connect_threads, options['parent'])
    server.banner = f'Serving on {options["where"]} (Django {get_version()}, uvicorn).'
    server.run(sockets)


def _listen(addrport, host, port):
    try:
        return several.listen(host, port)
    except OSError as error:
        raise CommandError(f'Cannot listen on {addrport}: {error.strerror}.')


def _application():
    """Return the application of ``ASGI_APPLICATION``; with ``DEBUG``, it serves static files, as ``runserver`` does."""
    path = getattr(settings, 'ASGI_APPLICATION', None)
    if path is None:
        raise CommandError("The settings have no ASGI_APPLICATION. Write ASGI_APPLICATION = 'mysite.asgi.application'.")
    application = import_string(path)
    if settings.DEBUG and apps.is_installed('django.contrib.staticfiles'):
        return ASGIStaticFilesHandler(application)
    return application


def _log_access(name):
    """Have uvicorn write its access log to the file ``name``, ``-`` for stdout; return whether it does."""
    if name is None:
        return False
    log = logging.getLogger('uvicorn.access')
    handler = logging.StreamHandler(sys.stdout) if name == '-' else logging.FileHandler(name)
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return True
