"""`kat serve`: the agent."""

import typer

from spoa.cli.settings import FAILURE, ConfigFile, fail, load_or_exit


def serve(config: ConfigFile = None) -> None:
    """Run the agent.

    With a private Redis, unless store.url names another.
    """
    settings = load_or_exit(config)

    from spoa.config.sections import LogFormat  # noqa: PLC0415
    from spoa.listen import ListenError  # noqa: PLC0415
    from spoa.log import configure, log  # noqa: PLC0415
    from spoa.supervisor import service  # noqa: PLC0415 - see load_or_exit
    from spoa.supervisor.embedded import EmbeddedError  # noqa: PLC0415

    configure(settings.log)
    try:
        raise typer.Exit(service.serve(settings))
    except (ListenError, EmbeddedError) as error:
        if settings.log.format is LogFormat.JSON:
            log.error(str(error))
            raise typer.Exit(FAILURE) from None
        fail(str(error))
