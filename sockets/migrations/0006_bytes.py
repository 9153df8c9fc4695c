from django.db import migrations

# Each collation that compares characters as they are, the ones first that do not pad with blanks: of MariaDB, of
# MySQL 8, of all.
_EXACT = ('{}_nopad_bin', '{}_0900_bin', '{}_bin')


def compare_as_they_are(apps, schema_editor):
    """Have MySQL and MariaDB tell ``/room/tea/`` from ``/ROOM/TEA/``, as other databases do."""
    connection = schema_editor.connection
    if connection.vendor != 'mysql':
        return
    model = apps.get_model('sockets', 'Socket')
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        for name in ('path', 'channel_name', 'server', 'layer'):
            field = model._meta.get_field(name)
            cursor.execute('SELECT character_set_name FROM information_schema.columns '
                           'WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s',
                           [model._meta.db_table, field.column])
            charset, = cursor.fetchone()
            cursor.execute('SELECT collation_name FROM information_schema.collations WHERE character_set_name = %s',
                           [charset])
            known = {collation for collation, in cursor.fetchall()}
            collation = next(entry.format(charset) for entry in _EXACT if entry.format(charset) in known)
            cursor.execute('ALTER TABLE {} MODIFY {} {} CHARACTER SET {} COLLATE {} {}'.format(
                quote(model._meta.db_table), quote(field.column), field.db_type(connection), charset, collation,
                'NULL' if field.null else 'NOT NULL'))


class Migration(migrations.Migration):

    dependencies = [
        ('sockets', '0005_socket_layer'),
    ]

    operations = [
        # A project's router may say of each model where it is.
        migrations.RunPython(compare_as_they_are, migrations.RunPython.noop, hints={'model_name': 'socket'}),
    ]
