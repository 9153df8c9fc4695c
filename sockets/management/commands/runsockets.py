"""``manage.py runsockets``: connections, pages and workers in one process, or in several behind one port."""

import argparse

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = 'Serves pages and websockets, and runs their code, in one process or in several behind one port.'

    def add_arguments(self, parser):
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

    def handle(self, *args, **options):
        # Imported late: it needs daphne and Twisted.
        from ...engines.channels1 import command

        command.run(self.stdout, **options)
