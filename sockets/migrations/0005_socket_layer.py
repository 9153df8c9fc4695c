from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sockets', '0004_rooms'),
    ]

    operations = [
        # NULL: processes of the version before go on inserting rows without it.
        migrations.AddField(
            model_name='socket',
            name='layer',
            field=models.CharField(editable=False, max_length=100, null=True),
        ),
    ]
