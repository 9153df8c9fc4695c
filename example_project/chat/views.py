"""The pages of the chat, and the websockets that live beside two of them."""

import random
import re
from collections import Counter
from datetime import timedelta

from django.contrib import messages
from django.contrib.auth.mixins import UserPassesTestMixin
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.views.generic import FormView, TemplateView

from sockets import SocketRouter
from sockets.exceptions import FrameError
from sockets.messages import CLOSE_NOT_ALLOWED, INVALID_CONTENT, UNKNOWN_TYPE
from sockets.models import Socket

from .forms import MAX_TEXT, AnnounceForm, EnterForm, KickForm, SayForm
from .handlers import PresenceHandler, name_at, name_of, people_at, windows_of
from .models import Kick, Message

ROOMS = ('lobby', 'django', 'tea')
# Messages that somebody who comes in gets to see.
LAST = 50
# Seconds that the pulse shows.
PULSE = 60


class Home(FormView):
    """Choose a name and a room."""

    template_name = 'chat/home.html'
    form_class = EnterForm

    def get_initial(self):
        return {'name': self.request.session.get('name', ''), 'room': self.request.GET.get('room', ROOMS[0])}

    def get_form_kwargs(self):
        return {**super().get_form_kwargs(), 'user': self.request.user}

    def get_context_data(self, **kwargs):
        rooms = [(room, len(people_at(reverse('room', args=[room])))) for room in ROOMS]
        return super().get_context_data(rooms=rooms, name=name_of(self.request.user, self.request.session), **kwargs)

    def form_valid(self, form):
        if 'name' in form.cleaned_data:
            # The socket finds it again: its session is the one of the page.
            self.request.session['name'] = form.cleaned_data['name']
        return redirect('room', room=form.cleaned_data['room'])


class Room(TemplateView):
    """A room: its page, and the socket at the same path."""

    template_name = 'chat/room.html'
    socket = SocketRouter(handler=PresenceHandler)

    def get(self, request, *args, **kwargs):
        if not name_of(request.user, request.session):
            return redirect('{}?room={}'.format(reverse('home'), kwargs['room']))
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            name=name_of(self.request.user, self.request.session), max_text=MAX_TEXT, **kwargs
        )

    @socket.connect
    def on_connect(socket, message, room):
        if Kick.objects.applies_to(room, socket.socket):
            socket.send_action('KICKED')
            return socket.close(CLOSE_NOT_ALLOWED)
        socket.follow('room:' + room, last=LAST)
        # The pages know people by the ids of their connections.
        Socket.objects.filter(path=socket.path).send_action('CONNECTED')

    @socket.arrived
    def on_arrived(socket):
        # Not for a second tab, nor for a page that is loaded again.
        Socket.objects.filter(path=socket.path).send_action('JOINED', name=socket.name)

    @socket.left
    def on_left(socket, room):
        # The row is deleted by now, so no queryset finds it; its user and session are still at hand.
        if not Kick.objects.applies_to(room, socket.row):
            Socket.objects.filter(path=socket.path).send_action('LEFT', name=socket.name)

    @socket.route('SAY', form=SayForm, rate=20)
    def say(socket, content, room):
        """Say something to the room."""
        pk, is_new = Message.objects.say(room, socket.name, content['text'], socket.content.get('ref'))
        if is_new:
            Socket.objects.filter(path=reverse('pulse')).send_action('BEAT')
        return {'type': 'TAKEN', 'id': pk}

    @socket.route('TYPING', rate=1)
    def typing(socket):
        """Tell the others that something is on its way."""
        Socket.objects.filter(path=socket.path).exclude(pk=socket.socket.pk).send_action('TYPING', name=socket.name)

    @socket.route(re.compile(r'/d([1-9][0-9]{0,2})$'))
    def roll(socket, content):
        """Roll a die of so many sides."""
        sides = int(content['type'][len('/d') :])
        Socket.objects.filter(path=socket.path).send_action(
            'NOTE', text=f'{socket.name} rolls {random.randint(1, sides)} of {sides}.'
        )

    @socket.route('KICK', form=KickForm, permission='chat.add_kick')
    def kick(socket, content, room):
        """Ask the person of the connection ``id`` to leave, and to stay away for a while."""
        row = Socket.objects.filter(path=socket.path, pk=content['id']).select_related('user', 'session').first()
        if row is None:
            raise FrameError(INVALID_CONTENT, 'They have left already.')
        Kick.objects.create(room=room, user=row.user, session_key=None if row.user_id else row.session_id)
        windows_of(row).send_action('KICKED')
        windows_of(row).revoke()
        Socket.objects.filter(path=socket.path).send_action('LEFT', name=name_at(row), by=socket.name)

    @socket.default_route
    def unknown(socket, content):
        raise FrameError(UNKNOWN_TYPE, 'This room does not know {!r:.40}. Try /d6 or /d20.'.format(content.get('type')))


class Pulse(TemplateView):
    """Messages per second in all rooms, as they are said."""

    template_name = 'chat/pulse.html'
    socket = SocketRouter()

    @socket.connect
    def on_connect(socket):
        now = timezone.now()
        said = Message.objects.filter(at__gt=now - timedelta(seconds=PULSE)).values_list('at', flat=True)
        counts = Counter(int((now - at).total_seconds()) for at in said)
        # The oldest second first.
        socket.send_action('PULSE', counts=[counts[ago] for ago in reversed(range(PULSE))])


class Announce(UserPassesTestMixin, FormView):
    """Tell everyone in every room: any code of the server can push, this is an ordinary HTTP view."""

    template_name = 'chat/announce.html'
    form_class = AnnounceForm
    success_url = reverse_lazy('announce')

    def test_func(self):
        return self.request.user.is_staff

    def form_valid(self, form):
        told = Socket.objects.send_action('ANNOUNCED', text=form.cleaned_data['text'])
        messages.success(self.request, f'Handed to {told} open pages.')
        return super().form_valid(form)
