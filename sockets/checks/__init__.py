"""What ``manage.py check`` says about a project: each finding with an id, the reason and the remedy.

None of them asks a database, Redis or anybody else. What concerns the engine, it says itself. docs/checks.md is the
list.
"""

from .database import check_database, check_relations
from .handlers import check_handlers
from .installation import check_distributions, check_installed
from .origins import check_origins
from .settings import check_proxies, check_settings

__all__ = [
    'check_database',
    'check_distributions',
    'check_handlers',
    'check_installed',
    'check_origins',
    'check_proxies',
    'check_relations',
    'check_settings',
]
