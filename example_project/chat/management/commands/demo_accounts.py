from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = 'Makes the accounts of settings.DEMO_ACCOUNTS that are not there yet; the first one is a superuser.'

    def handle(self, **options):
        if not settings.DEMO_ACCOUNTS:
            raise CommandError('There are no demo accounts without DEBUG: everyone knows their passwords.')
        User = get_user_model()
        for rank, (name, password) in enumerate(settings.DEMO_ACCOUNTS.items()):
            if User.objects.filter(username=name).exists():
                continue
            create = User.objects.create_user if rank else User.objects.create_superuser
            create(name, f'{name}@example.com', password)
            self.stdout.write(f'{name} / {password}')
