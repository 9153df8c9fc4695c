"""``manage.py sockets``: who is connected, and what an operator does about it."""

import json
import sys
import time

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.db.models import Count
from django.utils import timezone

from ... import engine, fanout, messages, presence
from ...exceptions import DeliveryFailed
from ...execution import thread_state
from ...models import Socket
from ...operations import description, doctor
from ...operations.ages import age
from ...streams import numbering

LINES = 20


class Command(BaseCommand):
    help = (
        'Lists connections (list), removes the dead (purge), speaks to connections (send), ends them (close), '
        'tries each part of the site (doctor), tells what its sockets answer (describe), '
        'and says that the database was restored from a backup (restored).'
    )
    # The doctor says it in its own way. A list since Django 3.2, and before that an empty one is false.
    requires_system_checks, stealth_options = [], ('skip_checks',)

    def add_arguments(self, parser):
        parser.add_argument(
            'action',
            nargs='?',
            default='list',
            choices=('list', 'purge', 'send', 'close', 'doctor', 'describe', 'restored'),
        )
        parser.add_argument('content', nargs='?', help='send: a JSON object, such as \'{"type": "BACK_SOON"}\'')
        parser.add_argument('--path', help='only connections at this path')
        parser.add_argument('--user', help='only connections of the user of this name')
        parser.add_argument('--server', help='only connections of this server, or whose server begins so')
        parser.add_argument('--address', help='only connections from this address')
        parser.add_argument('--inactive', action='store_true', help='only connections that have not answered')
        parser.add_argument('--all', action='store_true', help='send, close: every connection')
        parser.add_argument('--code', type=int, default=messages.CLOSE_NORMAL, help='close: the close code')
        parser.add_argument('--every', type=float, metavar='SECONDS', help='purge: go on until stopped')
        parser.add_argument('--json', action='store_true', help='list: all of it, for scripts')
        parser.add_argument('--asyncapi', action='store_true', help='describe: as AsyncAPI 3, in JSON')
        parser.add_argument('--typescript', action='store_true', help='describe: as types for sockets.js')
        parser.add_argument('--url', help='doctor: a websocket to talk to, such as wss://example.com/mypage/')

    def handle(self, action, content, **options):
        if content is not None and action != 'send':
            raise CommandError(f'{action} takes no {content!r}.')
        if action == 'doctor':
            return self.doctor(options['url'])
        if not options.get('skip_checks'):
            self.check()
        if action == 'describe':
            return self.describe(options)
        if action == 'restored':
            return self.restored()
        rows, is_filtered = self.chosen(options)
        if action in ('send', 'close') and not (is_filtered or options['all']):
            raise CommandError('Say whom: --path, --user, --server, --address, --inactive, or --all.')
        if action in ('send', 'close'):
            self.refuse_unreachable(rows)
        getattr(self, action)(rows, content, options)

    def refuse_unreachable(self, rows):
        away = fanout.unreachable(rows.values_list('channel_name', flat=True))
        if away:
            raise CommandError(
                'These are connections of {}, and the channel layer in memory does not reach them from here. {}'.format(
                    printable(', '.join(sorted(away))), fanout.reach_all()
                )
            )

    def chosen(self, options):
        """Return the rows that the options name, and whether they name any in particular."""
        filters = {}
        if options['path'] is not None:
            filters['path'] = options['path']
        if options['user'] is not None:
            try:
                filters['user'] = get_user_model()._default_manager.get_by_natural_key(options['user']).pk
            except get_user_model().DoesNotExist:
                raise CommandError('There is no user {!r}.'.format(options['user']))
        if options['server'] is not None:
            filters['server__startswith'] = options['server']
        if options['address'] is not None:
            filters['user_ip'] = options['address']
        if options['inactive']:
            filters['active'] = False
        return Socket.objects.on_primary().filter(**filters), bool(filters)

    def list(self, rows, content, options):
        names = 'id', 'user', 'path', 'user_ip', 'active', 'created', 'last_ping', 'server'
        totals = {
            name: list(rows.order_by().values_list(name).annotate(count=Count('pk')).order_by('-count', name))
            for name in ('path', 'user', 'server')
        }
        if options['json']:
            self.stdout.write(as_json(rows, names, totals))
            return
        self.stdout.write(
            '{} connections, {} users, {} servers'.format(
                rows.count(), len([1 for pk, _ in totals['user'] if pk is not None]), len(totals['server'])
            )
        )
        now = timezone.now()
        newest = list(rows.order_by('-pk').values_list(*names)[:LINES])
        users = dict(
            get_user_model()
            ._default_manager.filter(
                pk__in={pk for pk, _ in totals['user'][:LINES]}.union(line[1] for line in newest) - {None}
            )
            .values_list('pk', get_user_model().USERNAME_FIELD)
        )
        self.table(
            'The newest',
            ('id', 'user', 'path', 'address', 'open', 'heard', 'server'),
            [
                (
                    pk,
                    users.get(user, user) or '-',
                    path,
                    ip or '-',
                    age(now - created),
                    age(now - ping) + ('' if active else ', asked'),
                    server,
                )
                for pk, user, path, ip, active, created, ping, server in newest
            ],
        )
        for name, counts in totals.items():
            self.table(
                f'By {name}',
                (name, 'connections'),
                [
                    (users.get(value, value) if name == 'user' and value is not None else value or '-', n)
                    for value, n in counts[:LINES]
                ],
            )
        for title, counts in engine.current().statistics().items():
            self.table(
                f'{title.capitalize()}, by channel',
                ('channel', 'messages'),
                sorted(counts.items(), key=lambda item: -item[1])[:LINES],
            )

    def purge(self, rows, content, options):
        if options['every'] is not None and options['every'] <= 0:
            raise CommandError('--every takes a number of seconds.')
        while True:
            thread_state.close_stale()
            try:
                count = presence.purge()
            except Exception as error:
                if options['every'] is None:
                    raise
                self.stderr.write(printable(f'{type(error).__name__}: {error}; trying again'))
                connections[Socket.objects.on_primary().db].close()
            else:
                if count or options['every'] is None:
                    self.stdout.write(f'Removed {count} rows.')
            if options['every'] is None:
                return
            time.sleep(options['every'])

    def send(self, rows, content, options):
        try:
            content = json.loads(content or '')
        except ValueError as error:
            raise CommandError(f'This is not JSON: {error}. Write \'{{"type": "BACK_SOON"}}\'.')
        try:
            count = rows.send_json(content)
        except (TypeError, DeliveryFailed) as error:
            raise CommandError(str(error))
        self.stdout.write(f'Handed to {count} connections.')

    def close(self, rows, content, options):
        try:
            count = rows.close(options['code'])
        except (ValueError, DeliveryFailed) as error:
            raise CommandError(str(error))
        self.stdout.write(f'Closed {count} connections.')

    def doctor(self, url):
        is_well = True
        for name, ok, text, remedy in doctor.examine(url):
            word, style = {True: ('ok', self.style.SUCCESS), False: ('BAD', self.style.ERROR)}.get(ok, ('--', str))
            text = ' '.join(f'{text} -> {remedy}'.split()) if remedy else ' '.join(text.split())
            self.stdout.write(style(f'{word:4} {printable(name):13} {printable(text)}'))
            is_well = is_well and ok is not False
        if not is_well:
            sys.exit(1)

    def describe(self, options):
        found = description.endpoints()
        if options['asyncapi']:
            title = settings.ROOT_URLCONF.partition('.')[0]
            self.stdout.write(json.dumps(description.as_asyncapi(found, title, '1'), indent=2))
        else:
            self.stdout.write(description.as_typescript(found) if options['typescript'] else description.as_text(found))

    def restored(self):
        count = numbering.begin_epochs()
        self.stdout.write(
            f'Began an epoch for {count} streams: clients that come back are told that messages are lost.'
        )

    def table(self, title, heads, lines):
        """Write ``lines`` in columns, and nothing where there are none."""
        if not lines:
            return
        lines = [heads, *([printable(str(value)) for value in line] for line in lines)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
        self.stdout.write(f'\n{title}')
        for line in lines:
            self.stdout.write('  ' + '  '.join(value.ljust(width) for value, width in zip(line, widths)).rstrip())


def as_json(rows, names, totals):
    """Return all that ``list`` says of ``rows``, for scripts."""
    content = {
        'connections': [dict(zip(names, values)) for values in rows.order_by('pk').values_list(*names)],
        'totals': {name: [{name: value, 'connections': n} for value, n in counts] for name, counts in totals.items()},
        'layer': engine.current().statistics(),
    }
    return messages.encode(content)


def printable(text):
    """Return ``text`` on one line, with what a terminal would obey escaped: clients choose paths, and names of users."""
    return ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in text)
