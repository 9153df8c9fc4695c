from django.conf import settings
from django.db import migrations, models
import django.db.models.deletion
import uuid

from ..models.fields import nullable_boolean


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('sockets', '0007_credentials'),
    ]

    # Processes of the release before this one may go on meanwhile: they know neither the column nor the table.
    operations = [
        migrations.AddField(
            model_name='socket',
            name='has_arrived',
            field=nullable_boolean(editable=False),
        ),
        migrations.CreateModel(
            name='Ending',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('noted', models.DateTimeField(auto_now_add=True)),
                ('socket_pk', models.BigIntegerField()),
                ('channel_name', models.CharField(max_length=100)),
                ('server', models.CharField(max_length=100)),
                ('layer', models.CharField(max_length=100, null=True)),
                ('path', models.CharField(max_length=255)),
                ('session_key', models.CharField(db_index=True, max_length=40, null=True)),
                ('user_ip', models.GenericIPAddressField(null=True, unpack_ipv4=True)),
                ('handshake', models.TextField(default='')),
                ('opened', models.DateTimeField()),
                ('last_ping', models.DateTimeField()),
                ('rooms', models.TextField(default='[]')),
                ('code', models.IntegerField(null=True)),
                ('reason', models.TextField(null=True)),
                ('due', models.DateTimeField(null=True)),
                ('has_left', models.BooleanField(default=False)),
                ('claimed_by', models.CharField(max_length=32, null=True)),
                ('claimed_until', models.DateTimeField(null=True)),
                ('user', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
    ]
