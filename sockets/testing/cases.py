"""Test cases of Django whose tests have a sandbox."""
from .isolation import sandbox


class SocketTestMixin:
    """Has each test of a Django ``TestCase`` run in a ``sandbox()``."""

    def _pre_setup(self):
        super()._pre_setup()
        self._sandbox = sandbox()
        self._sandbox.__enter__()

    def _post_teardown(self):
        self._sandbox.__exit__(None, None, None)
        super()._post_teardown()
