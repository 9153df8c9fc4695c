from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class Member(AbstractBaseUser):
    """A user who is active until the membership ends: a property, which no query can ask for."""

    name = models.CharField(max_length=100, unique=True)
    has_left = models.BooleanField(default=False)

    USERNAME_FIELD = 'name'
    objects = BaseUserManager()

    @property
    def is_active(self):
        return not self.has_left


class Visit(AbstractBaseSession):
    """A session, in a table of its own, that knows whose it is."""

    member = models.IntegerField(null=True)

    @classmethod
    def get_session_store_class(cls):
        from .sessions import SessionStore

        return SessionStore
