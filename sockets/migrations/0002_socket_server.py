from django.db import migrations, models


def name_servers(apps, schema_editor):
    """Fill in the server of connections that are open while this runs."""
    rows = apps.get_model('sockets', 'Socket').objects.using(schema_editor.connection.alias)
    for pk, name in rows.values_list('pk', 'channel_name').iterator():
        head, mark, _ = name.partition('!')
        rows.filter(pk=pk).update(server=head + mark)


class Migration(migrations.Migration):

    dependencies = [('sockets', '0001_initial')]

    operations = [
        migrations.AddField(
            model_name='socket',
            name='server',
            field=models.CharField(db_index=True, default='', editable=False, max_length=100),
        ),
        # A project's router may say of each model where it is.
        migrations.RunPython(name_servers, migrations.RunPython.noop, hints={'model_name': 'socket'}),
    ]
