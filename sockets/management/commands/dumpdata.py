"""``manage.py dumpdata``, without the rows of open connections: they are nothing to load, here or elsewhere."""

from django.core.management.commands import dumpdata

MODELS = ('sockets.socket', 'sockets.membership')


class Command(dumpdata.Command):
    help = dumpdata.Command.help + ' Open connections and their rooms are left out unless they are named.'

    def handle(self, *app_labels, **options):
        if not app_labels:
            options['exclude'] = [*options['exclude'], *MODELS]
        super().handle(*app_labels, **options)
