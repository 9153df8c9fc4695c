"""What the pages of connections and of streams share: nothing is made or changed there, and actions ask first."""

import django
from django.contrib import admin
from django.contrib import messages as notices
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ERROR_FLAG
from django.contrib.contenttypes.models import ContentType
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timezone import template_localtime

from ..exceptions import DeliveryFailed
from ..operations.ages import age
from .forms import count_text


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows to look at; ``actions`` names methods that return ``ask()``."""

    # What one of the rows is called.
    noun = 'row'
    # Only the count of what matches is shown.
    show_full_result_count = False

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        # Django 1.11 and 2.0 have no permission to view, and would save the unchanged object.
        if django.VERSION >= (2, 1) or (obj is not None and request.method == 'POST'):
            return False
        return super().has_change_permission(request, obj)

    def get_actions(self, request):
        actions = super().get_actions(request)
        # It shows all rows on its page, writes a log entry for each and asks the database about each.
        actions.pop('delete_selected', None)
        # Django 1.11 and 2.0 do not look at allowed_permissions.
        for name, (function, *_) in list(actions.items()):
            needed = getattr(function, 'allowed_permissions', ())
            if not all(getattr(self, f'has_{permission}_permission')(request) for permission in needed):
                del actions[name]
        return actions

    def is_key(self, text):
        """Whether ``text`` may be the primary key of a row. SQLite takes no more than 64 bits."""
        return text.isdecimal() and len(text) < 19

    def changelist_view(self, request, extra_context=None):
        if self._is_valid(request):
            return super().changelist_view(request, extra_context)
        # As Django answers an invalid filter.
        return HttpResponseRedirect(f'{request.path}?{ERROR_FLAG}=1')

    def change_view(self, request, object_id, form_url='', extra_context=None):
        # Django 1.11 and 2.0 would offer to save.
        return super().change_view(
            request, object_id, form_url, dict(extra_context or {}, show_save=False, show_save_and_continue=False)
        )

    def ask(self, request, queryset, action, form_class):
        """Show the form of an action until it is valid; then do it, log it and go back to the list."""
        count = queryset.count()
        title = f'{getattr(self, action).short_description}: {count_text(count, self.noun)}'
        form = form_class(request.POST if 'confirmed' in request.POST else None)
        if form.is_valid():
            # An admin who logs out himself is anonymous afterwards.
            user = request.user.pk
            try:
                text, is_all = form.run(request, queryset, count)
            except DeliveryFailed as error:
                text, is_all = f'{error}.', False
            # One entry for all of them: their rows will soon be gone. (log_action() would link to a row.)
            LogEntry.objects.create(
                user_id=user,
                content_type=ContentType.objects.get_for_model(self.model),
                object_repr=title,
                action_flag=CHANGE,
                change_message=text,
            )
            self.message_user(request, text, notices.SUCCESS if is_all else notices.WARNING)
            return None
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        across = request.POST.get('select_across') == '1'
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            'admin/sockets/socket/action.html',
            dict(
                self.admin_site.each_context(request),
                title=title,
                opts=self.opts,
                media=self.media,
                form=form,
                explanation=form.explain(queryset, count),
                # Django does nothing if nothing is selected; one key stands for everything that matches.
                hidden=[(ACTION_CHECKBOX_NAME, pk) for pk in (selected[:1] if across else selected)]
                + [('select_across', int(across)), ('action', action), ('confirmed', 'yes')],
                back=request.get_full_path(),
            ),
        )

    def _is_valid(self, request):
        """Whether a database can take the values of ``request``: PostgreSQL raises at a NUL, each at an invalid key."""
        said = [
            text for data in (request.GET, request.POST) for name, values in data.lists() for text in (name, *values)
        ]
        keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
        return not any('\0' in text for text in said) and all(self.is_key(key) for key in keys)


def moment(time, text):
    """Return how long ago ``time`` was, within ``text``, and when that was for a mouse that rests on it."""
    return format_html(
        '<span title="{}">{}</span>',
        template_localtime(time).strftime('%Y-%m-%d %H:%M:%S'),
        text.format(age(timezone.now() - time)),
    )
