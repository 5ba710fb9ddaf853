"""The ``laps`` command. Each module holds the subcommands of one subject; heavy imports happen when one runs."""
