"""The list of streams, and the page of one."""

from functools import partial

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import transaction
from django.db.models import Count

from ..models import Membership, StreamHead
from ..streams import retention
from ..streams.tables import database
from .forms import count_text
from .readonly import ReadOnlyAdmin, moment


class ClearForm(forms.Form):
    """The form of the action; see ``SendForm``."""

    button = 'Clear'

    def explain(self, rows, count):
        return [
            'This removes all {} of {}. Who was away and has not had them yet is told that they are lost. '
            'Numbers go on where they are.'.format(
                count_text(sum(head.kept for head in rows), 'message'), count_text(count, 'stream')
            )
        ]

    def run(self, request, rows, count):
        for key in list(rows.values_list('pk', flat=True)):
            transaction.on_commit(partial(retention.clear, key), using=database())
        return 'Cleared {}.'.format(count_text(count, 'stream')), True


class StreamList(ChangeList):
    """Counts the followers of the streams of a page by one query."""

    def get_results(self, request):
        super().get_results(request)
        self.result_list = list(self.result_list)
        counts = _follower_counts([head.pk for head in self.result_list])
        for head in self.result_list:
            head.follower_count = counts.get(head.pk, 0)


@admin.register(StreamHead)
class StreamAdmin(ReadOnlyAdmin):
    noun = 'stream'
    list_display = ('name', 'kept', 'last_message', 'followers')
    ordering = ('-moved',)
    # The beginning of a name.
    search_fields = ('^name',)
    actions = ('clear',)
    fields = readonly_fields = (
        'name',
        'kept',
        'last_message',
        'followers',
        'epoch',
        'offset',
        'trimmed',
        'max_messages',
        'max_age',
    )

    def kept(self, head):
        return head.kept

    kept.short_description = 'messages kept'

    def last_message(self, head):
        return head.moved and moment(head.moved, '{} ago')

    last_message.admin_order_field = 'moved'

    def followers(self, head):
        if not hasattr(head, 'follower_count'):
            head.follower_count = _follower_counts([head.pk]).get(head.pk, 0)
        return head.follower_count

    def get_queryset(self, request):
        return super().get_queryset(request).using(database())

    def get_changelist(self, request, **kwargs):
        return StreamList

    def is_key(self, text):
        return len(text) <= 64

    def has_delete_permission(self, request, obj=None):
        # Its messages would stay, and their numbers begin anew.
        return False

    def has_clear_permission(self, request):
        return request.user.has_perm('sockets.clear_streamhead')

    def clear(self, request, queryset):
        return self.ask(request, queryset, 'clear', ClearForm)

    clear.short_description = 'Clear'
    clear.allowed_permissions = ('clear',)


def _follower_counts(keys):
    """Return how many connections follow the streams ``keys``, without those that nobody follows."""
    rows = Membership.objects.using(database()).filter(stream__in=keys).order_by()
    return dict(rows.values_list('stream').annotate(Count('pk')))
