"""Django test cases whose tests run in a sandbox."""

import sys
from typing import Any

from .isolation import sandbox


class SocketTestMixin:
    """Has each test of a Django ``TestCase`` or ``TransactionTestCase`` run in a ``sandbox()``."""

    def run(self, result: Any = None) -> Any:
        # Django has opened the test's transaction by now. Its own hook, _pre_setup(), is one of the class since Django 5.2.
        own = sandbox()
        try:
            own.__enter__()
        except Exception:
            # As Django does for a test that cannot be prepared. The others run.
            return result.addError(self, sys.exc_info())
        try:
            return super().run(result)  # type: ignore[misc]
        finally:
            own.__exit__(None, None, None)
