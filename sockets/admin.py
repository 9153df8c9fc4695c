"""Connections in Django's admin, to look at."""
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
    fields = readonly_fields = (
        'user', 'session', 'path', 'channel_name', 'user_ip', 'active', 'last_ping', 'created', 'modified')

    def get_search_fields(self, request):
        return ('path', 'channel_name', 'user_ip', 'user__' + get_user_model().USERNAME_FIELD)

    def has_add_permission(self, request):
        return False
