from django.db import migrations, models
import django.db.models.deletion


class Migration(migrations.Migration):

    dependencies = [
        ('sockets', '0003_socket_admin'),
    ]

    operations = [
        migrations.AddField(
            model_name='socket',
            name='handshake',
            field=models.TextField(default='', editable=False),
        ),
        migrations.CreateModel(
            name='Membership',
            fields=[
                ('id', models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=64)),
                ('name', models.TextField()),
                ('socket', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='sockets.Socket')),
            ],
            options={
                'unique_together': {('key', 'socket')},
            },
        ),
    ]
