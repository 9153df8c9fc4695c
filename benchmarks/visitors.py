"""Logs visitors in: makes users with a session each, in the database of the settings, and prints the sessions' keys.

Run it with ``python -m benchmarks.visitors COUNT`` in the virtualenv of a stack. All users but the last may change
users, by their group; the last one may nothing.
"""

import sys

import django


def log_in(count):
    """Yield the session keys of ``count`` users who may change users, then that of one who may not."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
    from django.contrib.auth.models import Group, Permission
    from django.contrib.sessions.backends.db import SessionStore

    group = Group.objects.create(name='editors')
    group.permissions.add(Permission.objects.get(codename='change_user'))
    User = get_user_model()
    for number in range(count + 1):
        user = User(username=f'visitor-{number}')
        user.set_unusable_password()
        user.save()
        if number < count:
            user.groups.add(group)
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = 'django.contrib.auth.backends.ModelBackend'
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        yield session.session_key


if __name__ == '__main__':
    django.setup()
    from django.db import transaction

    with transaction.atomic():
        print('\n'.join(log_in(int(sys.argv[1]))))
