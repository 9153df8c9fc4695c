import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('sockets', '0002_socket_server')]

    operations = [
        migrations.AlterModelOptions(
            name='socket',
            options={'permissions': [
                ('send_socket', 'Can send to socket'),
                ('close_socket', 'Can close socket'),
                ('logout_socket', 'Can log out the user of socket'),
            ]},
        ),
        # For the search of the admin, and for MAX_CONNECTIONS_PER_ADDRESS, which counts at each connect.
        migrations.AlterField(
            model_name='socket',
            name='user_ip',
            field=models.GenericIPAddressField(
                blank=True, db_index=True, null=True, unpack_ipv4=True, verbose_name='address'),
        ),
        # For the list, sorted and filtered by who was heard of.
        migrations.AlterField(
            model_name='socket',
            name='last_ping',
            field=models.DateTimeField(db_index=True, default=django.utils.timezone.now),
        ),
    ]
