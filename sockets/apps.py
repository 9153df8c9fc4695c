"""The Django app."""
from django.apps import AppConfig

from .engines.channels1 import compat

compat.patch_six_importer()


class SocketsConfig(AppConfig):
    name = 'sockets'
    verbose_name = 'Sockets'

    def ready(self):
        compat.patch_postgresql()
        from django.apps import apps

        from . import checks, router
        from .declaration import arguments
        from .engines.channels1 import checks as engine_checks  # Registers them.
        from .engines.channels1 import factory, rows, shutdown, transport, workers
        factory.patch_daphne()
        shutdown.patch_server()
        transport.install(on_worker=workers.start_housekeeper, on_worker_process=workers.take_over,
                          check_consumer=router.refuse_views, check_arguments=arguments.refuse_taken,
                          answers={rows.CHANNEL: rows.answer})
        # What is missing is for the checks to say.
        if apps.is_installed('django.contrib.auth') and apps.is_installed('django.contrib.sessions'):
            from .access import revocation
            revocation.install()
