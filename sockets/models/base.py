"""What all rows have."""

from django.db import models


class BaseModel(models.Model):
    """When a row was made, and when it was last saved."""

    created = models.DateTimeField(auto_now_add=True, db_index=True)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
