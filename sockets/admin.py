"""Connections in Django's admin, to look at and to end."""
from django.contrib import admin
from django.contrib.auth import get_user_model

from .models import Socket


@admin.register(Socket)
class SocketAdmin(admin.ModelAdmin):
    list_display = ('id', 'user', 'path', 'user_ip', 'active', 'last_ping', 'created')
    list_display_links = ('id', 'path')
    list_filter = ('active', 'created', 'last_ping')
    list_select_related = ('user',)
    ordering = ('-id',)
    actions = ['revoke']
    fields = readonly_fields = (
        'user', 'session', 'path', 'channel_name', 'user_ip', 'active', 'last_ping', 'created', 'modified')

    def get_search_fields(self, request):
        return ('path', 'channel_name', 'user_ip', 'user__' + get_user_model().USERNAME_FIELD)

    def has_add_permission(self, request):
        return False

    def get_actions(self, request):
        actions = super().get_actions(request)
        # Django 1.11 and 2.0 know no allowed_permissions.
        if not self.has_delete_permission(request):
            actions.pop('revoke', None)
        return actions

    def revoke(self, request, queryset):
        count = queryset.revoke()
        self.message_user(request, 'Closed {} connections. Who logs in again may come back.'.format(count))
    revoke.short_description = 'Close selected connections and take their right away'
