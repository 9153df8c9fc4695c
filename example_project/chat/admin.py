from django.contrib import admin

from .models import Kick, Message

admin.site.register([Kick, Message])
