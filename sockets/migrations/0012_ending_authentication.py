from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('sockets', '0011_streams')]

    # Processes of the release before this one may go on meanwhile: they do not know the column.
    operations = [
        migrations.AddField(
            model_name='ending',
            name='authentication',
            field=models.CharField(max_length=100, null=True),
        ),
    ]
