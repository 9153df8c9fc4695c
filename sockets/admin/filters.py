"""The filters of the list of connections."""

from datetime import timedelta

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q
from django.utils import timezone

from ..models import Socket

# Servers that are offered; the search takes any.
_SERVERS = 20


class ChoiceFilter(admin.SimpleListFilter):
    """A filter of ``options``: a value for the address, its label, and a function that returns its ``Q``."""

    options = ()

    def lookups(self, request, model_admin):
        return [(value, label) for value, label, _ in self.options]

    def queryset(self, request, queryset):
        if self.value() is None:
            return queryset
        for value, _, condition in self.options:
            if value == self.value():
                return queryset.filter(condition())
        # An action on everything that matches must not be one on everything.
        raise IncorrectLookupParameters(f'{self.parameter_name}={self.value()}')


class StateFilter(ChoiceFilter):
    title = parameter_name = 'state'
    # Since Django 3, active=False is NOT active, for which databases do not look into an index.
    options = (
        ('alive', 'alive', lambda: Q(active=True)),
        ('asked', 'asked, no answer yet', lambda: Q(active__in=[False])),
    )


class LoginFilter(ChoiceFilter):
    title = parameter_name = 'login'
    options = (('yes', 'logged in', lambda: Q(user__isnull=False)), ('no', 'anonymous', lambda: Q(user__isnull=True)))


def _ago(**span):
    return timezone.now() - timedelta(**span)


class AgeFilter(ChoiceFilter):
    title = parameter_name = 'age'
    options = (
        ('1min', 'less than a minute', lambda: Q(created__gt=_ago(minutes=1))),
        ('1h', 'less than an hour', lambda: Q(created__gt=_ago(hours=1))),
        ('over-1h', 'more than an hour', lambda: Q(created__lte=_ago(hours=1))),
        ('over-1d', 'more than a day', lambda: Q(created__lte=_ago(days=1))),
    )


class SeenFilter(ChoiceFilter):
    title = 'last seen'
    parameter_name = 'seen'
    options = (
        ('1min', 'within a minute', lambda: Q(last_ping__gt=_ago(minutes=1))),
        ('over-2min', 'over 2 minutes ago', lambda: Q(last_ping__lte=_ago(minutes=2))),
        ('over-1h', 'over an hour ago', lambda: Q(last_ping__lte=_ago(hours=1))),
    )


class ServerFilter(admin.SimpleListFilter):
    title = parameter_name = 'server'

    def lookups(self, request, model_admin):
        """Return the first servers that hold connections, each a step in the index: ``distinct()`` reads every row."""
        rows = Socket.objects.on_primary().order_by('server').values_list('server', flat=True)
        servers, server = [], ''
        for _ in range(_SERVERS):
            server = rows.filter(server__gt=server).first()
            if server is None:
                break
            servers.append((server, server))
        return servers

    def queryset(self, request, queryset):
        return queryset if self.value() is None else queryset.filter(server=self.value())
