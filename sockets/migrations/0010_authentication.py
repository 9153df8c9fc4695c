from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('sockets', '0009_servers')]

    # Processes of the release before this one may go on meanwhile: they do not know the columns.
    operations = [
        migrations.AddField(
            model_name='socket',
            name='authentication',
            field=models.CharField(editable=False, max_length=100, null=True),
        ),
        migrations.AddField(
            model_name='socket',
            name='authenticated_until',
            field=models.DateTimeField(db_index=True, editable=False, null=True),
        ),
    ]
