"""The list of connections, the page of one, and the actions on those that are selected."""

from django.contrib import admin, auth
from django.core.exceptions import ValidationError
from django.core.validators import validate_ipv46_address
from django.db.models import Q
from django.templatetags.static import static
from django.utils.html import format_html

from ..models import Socket
from .filters import AgeFilter, LoginFilter, SeenFilter, ServerFilter, StateFilter
from .forms import CloseForm, LogOutForm, SendForm
from .readonly import ReadOnlyAdmin, moment


@admin.register(Socket)
class SocketAdmin(ReadOnlyAdmin):
    noun = 'connection'
    list_display = ('user', 'path', 'user_ip', 'age', 'last_seen', 'server')
    list_display_links = ('path',)
    list_filter = (StateFilter, LoginFilter, AgeFilter, SeenFilter, ServerFilter)
    list_select_related = ('user',)
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
        return moment(row.created, '{}')

    age.short_description = 'open for'
    age.admin_order_field = '-created'

    def last_seen(self, row):
        ago = moment(row.last_ping, '{} ago')
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

    def has_send_permission(self, request):
        return request.user.has_perm('sockets.send_socket')

    def has_close_permission(self, request):
        return request.user.has_perm('sockets.close_socket')

    def has_logout_permission(self, request):
        return request.user.has_perm('sockets.logout_socket')

    def send_json(self, request, queryset):
        return self.ask(request, queryset, 'send_json', SendForm)

    send_json.short_description = 'Send JSON'
    send_json.allowed_permissions = ('send',)

    def close(self, request, queryset):
        return self.ask(request, queryset, 'close', CloseForm)

    close.short_description = 'Close with a code'
    close.allowed_permissions = ('close',)

    def log_out(self, request, queryset):
        return self.ask(request, queryset, 'log_out', LogOutForm)

    log_out.short_description = 'Log out everywhere'
    log_out.allowed_permissions = ('logout',)


def _is_address(text):
    try:
        validate_ipv46_address(text)
    except ValidationError:
        return False
    return True
