"""``manage.py runsockets``: connections, pages and their code in one process, or in several behind one port."""

from django.core.management.base import BaseCommand

from ... import engine


class Command(BaseCommand):
    help = 'Serves pages and websockets, and runs their code, in one process or in several behind one port.'

    def add_arguments(self, parser):
        engine.current().server_command().add_arguments(parser)

    def handle(self, *args, **options):
        engine.current().server_command().run(self.stdout, **options)
