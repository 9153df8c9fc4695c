from django.db import migrations, models

NAME = 'sockets_streammessage_unnumbered'


def add_index(apps, schema_editor):
    """Have the messages without a number found. No version of Django before 2.2 could say so in the model."""
    quote = schema_editor.quote_name
    table = quote(apps.get_model('sockets', 'StreamMessage')._meta.db_table)
    offset = quote('offset')
    if schema_editor.connection.vendor in ('postgresql', 'sqlite'):
        columns, condition = f'{quote("key")}, {quote("id")}', f' WHERE {offset} IS NULL'
    else:
        columns, condition = offset, ''
    schema_editor.execute(f'CREATE INDEX {quote(NAME)} ON {table} ({columns}){condition}')


def remove_index(apps, schema_editor):
    of_table = f' ON {schema_editor.quote_name("sockets_streammessage")}'
    is_of_table = schema_editor.connection.vendor == 'mysql'
    schema_editor.execute(f'DROP INDEX {schema_editor.quote_name(NAME)}{of_table if is_of_table else ""}')


class Migration(migrations.Migration):
    dependencies = [('sockets', '0012_ending_authentication')]

    # With an index of all numbers, PostgreSQL reads those of all other streams to find the next ones of a stream.
    # Processes of the release before this one may go on meanwhile.
    operations = [
        migrations.AlterField(
            model_name='streammessage',
            name='offset',
            field=models.BigIntegerField(null=True),
        ),
        # MySQL changes no table within a transaction.
        migrations.RunPython(add_index, remove_index, atomic=False, hints={'model_name': 'streammessage'}),
    ]
