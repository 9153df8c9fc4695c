from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from sockets.models import Socket


class Command(BaseCommand):
    help = 'Tells everyone in every room: manage.py announce "Back in five minutes."'

    def add_arguments(self, parser):
        parser.add_argument('text')

    def handle(self, text, **options):
        if not settings.REDIS_URL:
            raise CommandError(
                'The in-memory layer reaches nobody from outside the server process. '
                'Use the page /announce/, or set REDIS_URL for both.'
            )
        self.stdout.write('Handed to {} open pages.'.format(Socket.objects.send_action('ANNOUNCED', text=text)))
