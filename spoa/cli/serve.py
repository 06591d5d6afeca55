"""`kat serve`: the agent."""

import typer

from spoa.cli.settings import ConfigFile, fail, load_or_exit


def serve(config: ConfigFile = None) -> None:
    """Run the agent, with a private Redis unless store.url names another."""
    settings = load_or_exit(config)

    from spoa.listen import ListenError  # noqa: PLC0415
    from spoa.log import configure  # noqa: PLC0415
    from spoa.supervisor import service  # noqa: PLC0415 - see load_or_exit
    from spoa.supervisor.embedded import EmbeddedError  # noqa: PLC0415

    configure(settings.log)
    try:
        raise typer.Exit(service.serve(settings))
    except (ListenError, EmbeddedError) as error:
        fail(str(error))
