"""The engine of sessions of this site."""

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore


class SessionStore(DatabaseStore):
    @classmethod
    def get_model_class(cls):
        from .models import Visit

        return Visit

    def create_model_instance(self, data):
        visit = super().create_model_instance(data)
        visit.member = data.get('_auth_user_id')
        return visit
