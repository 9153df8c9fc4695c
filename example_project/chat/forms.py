from django import forms
from django.contrib.auth import get_user_model

MAX_TEXT = 500


class EnterForm(forms.Form):
    name = forms.RegexField(
        r"^\w[\w .'-]*$",
        label='Your name',
        max_length=30,
        error_messages={'invalid': 'A name begins with a letter or digit, and has no special characters.'},
    )
    room = forms.RegexField(
        r'^[a-z0-9-]+$',
        max_length=40,
        error_messages={'invalid': 'A room is called by small letters a to z, digits and hyphens.'},
    )

    def __init__(self, *args, user, **kwargs):
        super().__init__(*args, **kwargs)
        if user.is_authenticated:
            del self.fields['name']

    def clean_name(self):
        name = self.cleaned_data['name']
        if get_user_model().objects.filter(**{get_user_model().USERNAME_FIELD + '__iexact': name}).exists():
            raise forms.ValidationError('This name belongs to an account. Log in to use it.')
        return name


class AnnounceForm(forms.Form):
    text = forms.CharField(label='Announcement', max_length=MAX_TEXT)


# What frames must hold.


class SayForm(forms.Form):
    text = forms.CharField(max_length=MAX_TEXT)


class KickForm(forms.Form):
    id = forms.IntegerField()
