from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('sockets', '0010_authentication')]

    # Processes of the release before this one may go on meanwhile: they do not know the tables and the columns.
    operations = [
        migrations.AddField(
            model_name='membership',
            name='stream',
            field=models.CharField(db_index=True, max_length=64, null=True),
        ),
        migrations.AddField(
            model_name='membership',
            name='envelope',
            field=models.TextField(null=True),
        ),
        migrations.CreateModel(
            name='StreamHead',
            fields=[
                ('key', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('name', models.TextField()),
                ('epoch', models.CharField(max_length=12)),
                ('offset', models.BigIntegerField(default=0)),
                ('trimmed', models.BigIntegerField(default=0)),
                ('moved', models.DateTimeField(null=True)),
                ('max_messages', models.PositiveIntegerField(null=True)),
                ('max_age', models.PositiveIntegerField(null=True)),
                ('remind_at', models.DateTimeField(db_index=True, null=True)),
                ('reminders', models.PositiveSmallIntegerField(default=0)),
                ('trim_at', models.DateTimeField(db_index=True, null=True)),
            ],
            options={'verbose_name': 'stream', 'permissions': [('clear_streamhead', 'Can clear stream')]},
        ),
        migrations.CreateModel(
            name='StreamMessage',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('key', models.CharField(max_length=64)),
                ('name', models.TextField()),
                ('offset', models.BigIntegerField(db_index=True, null=True)),
                ('text', models.TextField()),
                ('created', models.DateTimeField(auto_now_add=True)),
            ],
            options={'unique_together': {('key', 'offset')}},
        ),
    ]
