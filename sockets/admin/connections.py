"""The list of connections, the page of one, and the actions on those that are selected."""

import django
from django.contrib import admin, auth
from django.contrib import messages as notices
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ERROR_FLAG
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.validators import validate_ipv46_address
from django.db.models import Q
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timezone import template_localtime

from ..exceptions import DeliveryFailed
from ..models import Socket
from ..operations.ages import age
from .filters import AgeFilter, LoginFilter, SeenFilter, ServerFilter, StateFilter
from .forms import CloseForm, LogOutForm, SendForm, count_text


@admin.register(Socket)
class SocketAdmin(admin.ModelAdmin):
    list_display = ('user', 'path', 'user_ip', 'age', 'last_seen', 'server')
    list_display_links = ('path',)
    list_filter = (StateFilter, LoginFilter, AgeFilter, SeenFilter, ServerFilter)
    list_select_related = ('user',)
    # Only the count of what matches is shown.
    show_full_result_count = False
    ordering = ('-id',)
    # What get_search_results() looks into.
    search_fields = ('path', 'user_ip', 'channel_name', 'server', 'user')
    actions = ('send_json', 'close', 'log_out')
    # Not the session: its key is as good as a password.
    fields = readonly_fields = (
        'user',
        'authentication',
        'authenticated_until',
        'path',
        'user_ip',
        'server',
        'channel_name',
        'active',
        'last_ping',
        'created',
        'modified',
    )

    def age(self, row):
        return _moment(row.created, '{}')

    age.short_description = 'open for'
    age.admin_order_field = '-created'

    def last_seen(self, row):
        ago = _moment(row.last_ping, '{} ago')
        if row.active:
            return ago
        return format_html(
            '{} <img src="{}" alt="asked, no answer yet" title="asked, no answer yet">',
            ago,
            static('admin/img/icon-alert.svg'),
        )

    last_seen.admin_order_field = 'last_ping'

    def get_queryset(self, request):
        # Actions must see the rows as they are now.
        return super().get_queryset(request).on_primary()

    def get_search_results(self, request, queryset, search_term):
        """Look for each term in the one column that it looks like, which has an index; ``OR`` would read every row."""
        for term in search_term.split():
            if term.startswith('/'):
                condition = Q(path__startswith=term)
            elif '!' in term:
                condition = Q(server=term) if term.endswith('!') else Q(channel_name=term)
            elif _is_address(term):
                condition = Q(user_ip=term)
            else:
                users = auth.get_user_model()._default_manager
                condition = Q(user__in=users.filter(**{users.model.USERNAME_FIELD + '__startswith': term}))
            queryset = queryset.filter(condition)
        return queryset, False

    # Since Django 5.0, it gets the request as well.
    def lookup_allowed(self, lookup, value, *request):
        # Or a session's key, or another cookie, could be guessed letter by letter.
        return not lookup.startswith(('session', 'handshake')) and super().lookup_allowed(lookup, value, *request)

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        # Django 1.11 and 2.0 have no permission to view, and would save the unchanged object.
        if django.VERSION >= (2, 1) or (obj is not None and request.method == 'POST'):
            return False
        return super().has_change_permission(request, obj)

    def has_send_permission(self, request):
        return request.user.has_perm('sockets.send_socket')

    def has_close_permission(self, request):
        return request.user.has_perm('sockets.close_socket')

    def has_logout_permission(self, request):
        return request.user.has_perm('sockets.logout_socket')

    def get_actions(self, request):
        actions = super().get_actions(request)
        # It shows all rows on its page, writes a log entry for each and asks the database about each.
        actions.pop('delete_selected', None)
        # Django 1.11 and 2.0 do not look at allowed_permissions.
        for name in SocketAdmin.actions:
            (permission,) = getattr(SocketAdmin, name).allowed_permissions
            if not getattr(self, f'has_{permission}_permission')(request):
                actions.pop(name, None)
        return actions

    def changelist_view(self, request, extra_context=None):
        if _is_valid(request):
            return super().changelist_view(request, extra_context)
        # As Django answers an invalid filter.
        return HttpResponseRedirect(f'{request.path}?{ERROR_FLAG}=1')

    def change_view(self, request, object_id, form_url='', extra_context=None):
        # Django 1.11 and 2.0 would offer to save.
        return super().change_view(
            request, object_id, form_url, dict(extra_context or {}, show_save=False, show_save_and_continue=False)
        )

    def send_json(self, request, queryset):
        return self._ask(request, queryset, 'send_json', SendForm)

    send_json.short_description = 'Send JSON'
    send_json.allowed_permissions = ('send',)

    def close(self, request, queryset):
        return self._ask(request, queryset, 'close', CloseForm)

    close.short_description = 'Close with a code'
    close.allowed_permissions = ('close',)

    def log_out(self, request, queryset):
        return self._ask(request, queryset, 'log_out', LogOutForm)

    log_out.short_description = 'Log out everywhere'
    log_out.allowed_permissions = ('logout',)

    def _ask(self, request, queryset, action, form_class):
        """Show the form of an action until it is valid; then do it, log it and go back to the list."""
        count = queryset.count()
        title = '{}: {}'.format(getattr(self, action).short_description, count_text(count, 'connection'))
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
                content_type=ContentType.objects.get_for_model(Socket),
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


def _moment(moment, text):
    """Return how long ago ``moment`` was, within ``text``, and when that was for a mouse that rests on it."""
    return format_html(
        '<span title="{}">{}</span>',
        template_localtime(moment).strftime('%Y-%m-%d %H:%M:%S'),
        text.format(age(timezone.now() - moment)),
    )


def _is_valid(request):
    """Whether a database can take the values of ``request``: PostgreSQL raises at a NUL, each at an invalid key."""
    said = [text for data in (request.GET, request.POST) for name, values in data.lists() for text in (name, *values)]
    keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
    # SQLite takes no more than 64 bits.
    return not any('\0' in text for text in said) and all(key.isdecimal() and len(key) < 19 for key in keys)


def _is_address(text):
    try:
        validate_ipv46_address(text)
    except ValidationError:
        return False
    return True
