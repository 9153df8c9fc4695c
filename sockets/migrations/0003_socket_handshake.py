from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sockets', '0002_socket_server'),
    ]

    operations = [
        migrations.AddField(
            model_name='socket',
            name='handshake',
            field=models.TextField(default='', editable=False),
        ),
    ]
