from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sockets', '0008_ends'),
    ]

    # Processes of the release before this one may go on meanwhile: they do not know the table.
    operations = [
        migrations.CreateModel(
            name='Server',
            fields=[
                ('name', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('beats', models.BigIntegerField(default=0, null=True)),
            ],
        ),
    ]
