from django.contrib import admin

from .paths import re_path

urlpatterns = [re_path('^admin/', admin.site.urls)]
