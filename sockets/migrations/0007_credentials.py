from django.conf import settings
from django.db import migrations


def strip_handshakes(apps, schema_editor):
    """Take credentials out of the rows of connections that are open while this runs. The connections go on."""
    from ..access import credentials
    rows = apps.get_model('sockets', 'Socket').objects.using(schema_editor.connection.alias)
    kept = list(rows.exclude(handshake='').values_list('pk', flat=True))
    for pk in kept:
        # One at a time: each may be long. A row that has gone meanwhile is none of ours.
        text = rows.filter(pk=pk).values_list('handshake', flat=True).first()
        stripped = credentials.strip_text(text or '', settings.SESSION_COOKIE_NAME)
        if text and stripped != text:
            rows.filter(pk=pk).update(handshake=stripped)


class Migration(migrations.Migration):

    dependencies = [('sockets', '0006_bytes')]

    operations = [
        # A project's router may say of each model where it is.
        migrations.RunPython(strip_handshakes, migrations.RunPython.noop, hints={'model_name': 'socket'}),
    ]
