"""Django test cases whose tests run in a sandbox."""

from .isolation import sandbox


class SocketTestMixin:
    """Has each test of a Django ``TestCase`` or ``TransactionTestCase`` run in a ``sandbox()``."""

    def _pre_setup(self) -> None:
        super()._pre_setup()  # type: ignore[misc]
        self._sandbox = sandbox()
        self._sandbox.__enter__()

    def _post_teardown(self) -> None:
        self._sandbox.__exit__(None, None, None)
        super()._post_teardown()  # type: ignore[misc]
