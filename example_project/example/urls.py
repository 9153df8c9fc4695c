from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path, re_path

from chat.views import Announce, Home, Pulse, Room

urlpatterns = [
    path('', Home.as_view(), name='home'),
    # routing.py has the same pattern: a socket lives at the path of its page.
    re_path(r'^room/(?P<room>[a-z0-9-]{1,40})/$', Room.as_view(), name='room'),
    path('pulse/', Pulse.as_view(), name='pulse'),
    path('announce/', Announce.as_view(), name='announce'),
    path(
        'login/',
        LoginView.as_view(template_name='chat/login.html', extra_context={'demo_accounts': settings.DEMO_ACCOUNTS}),
        name='login',
    ),
    path('logout/', LogoutView.as_view(), name='logout'),
    path('admin/', admin.site.urls),
    # runserver serves static files by itself, daphne does not. Nothing of this is left without DEBUG.
    *staticfiles_urlpatterns(),
]
