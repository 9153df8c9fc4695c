"""Fields that Django has under one name or another."""

from typing import Any

import django
from django.db import models


def nullable_boolean(**options: Any) -> Any:
    """Return a field for true, false and unknown, for a model and its migrations."""
    # Django 2.0 knows no other than NullBooleanField, and Django 4 has it for old migrations only.
    if django.VERSION >= (2, 1):
        return models.BooleanField(null=True, **options)
    return models.NullBooleanField(**options)
