"""How alembic runs the migrations: on the connection it is given, all of them in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
