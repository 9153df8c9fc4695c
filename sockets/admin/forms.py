"""The forms of the actions on connections, and what each action does."""

from django import forms
from django.conf import settings
from django.contrib import auth
from django.contrib.admin.widgets import AdminIntegerFieldWidget, AdminTextareaWidget
from django.core.exceptions import ValidationError

from .. import conf, messages
from ..access import revocation
from ..exceptions import FrameError

# Of what was sent, and of names, that are shown and kept in the log.
_CHARACTERS = 500
_NAMES = 10


class SendForm(forms.Form):
    """The form of an action; ``explain`` says what it will do, ``run`` does it and returns what was done."""

    button = 'Send'
    content = forms.CharField(
        label='JSON', widget=AdminTextareaWidget, help_text='A JSON object with a type, such as {"type": "BACK_SOON"}.'
    )

    def clean_content(self):
        try:
            messages.check_size(self.cleaned_data['content'], conf.MAX_MESSAGE_SIZE)
            content = messages.decode(self.cleaned_data['content'])
            # JSON allows what we cannot send, such as 1e999.
            messages.encode(content)
        except FrameError as error:
            raise ValidationError(error.details)
        except TypeError as error:
            raise ValidationError(str(error))
        return content

    def explain(self, rows, count):
        return ['This goes to {}.'.format(count_text(count, 'connection'))]

    def run(self, request, rows, count):
        content = self.cleaned_data['content']
        handed = rows.send_json(content)
        text = messages.encode(content)
        return 'Handed to {} of {}: {}{}'.format(
            handed, count_text(count, 'connection'), text[:_CHARACTERS], '...' * (len(text) > _CHARACTERS)
        ), handed >= count


class CloseForm(forms.Form):
    button = 'Close'
    code = forms.IntegerField(
        label='Close code',
        widget=AdminIntegerFieldWidget,
        initial=messages.CLOSE_NORMAL,
        help_text='1000 says that all is well; 4000 to 4999 are codes of your own.',
    )

    def clean_code(self):
        try:
            return messages.close_code(self.cleaned_data['code'])
        except ValueError as error:
            raise ValidationError(str(error))

    def explain(self, rows, count):
        return ['This closes {}. Who wants to may connect again.'.format(count_text(count, 'connection'))]

    def run(self, request, rows, count):
        code = self.cleaned_data['code']
        told = rows.close(code)
        return 'Told {} of {} to close with {}. Rows go as their connections close.'.format(
            told, count_text(count, 'connection'), code
        ), told >= count


class LogOutForm(forms.Form):
    button = 'Log out'

    def explain(self, rows, count):
        users = set(rows.order_by().exclude(user=None).values_list('user', flat=True))
        anonymous = rows.filter(user=None).count()
        said = []
        if users and revocation.can_search_sessions():
            said.append(
                f'This ends the sessions of {_names(users)} in every browser, and closes all their connections with 4401, '
                'selected or not.'
            )
        elif users:
            said.append(
                f'This closes all connections of {_names(users)} with 4401, selected or not. They stay logged in: {settings.SESSION_ENGINE} keeps '
                'sessions where they cannot be searched. A new password, or an account that is not active, '
                'ends those.'
            )
        if anonymous:
            said.append(
                '{} anonymous: this ends the session, if the database keeps one, and closes the connection.'.format(
                    count_text(anonymous, 'connection is', 'connections are')
                )
            )
        return said

    def run(self, request, rows, count):
        ended = revocation.log_out(rows)
        # Also oneself: what is left of this session must not be saved.
        if request.user.pk in ended.users or request.session.session_key in ended.sessions:
            auth.logout(request)
        text = 'Ended {} and closed {}.'.format(
            count_text(len(ended.sessions), 'session'), count_text(ended.connections, 'connection')
        )
        if ended.users:
            text += f' Users: {_names(ended.users)}.'
        if not ended.found_all:
            text += ' They may have more sessions, which could not be searched; a new password ends those.'
        return text, ended.found_all


def count_text(number, one, many=None):
    return '{} {}'.format(number, one if number == 1 else many or one + 's')


def _names(users):
    """Return the names of the first of ``users``, a set of primary keys, and how many more there are."""
    first = auth.get_user_model()._default_manager.filter(pk__in=sorted(users)[:_NAMES])
    names = ', '.join(user.get_username() for user in first)
    return names + (f' and {len(users) - _NAMES} more' if len(users) > _NAMES else '')
