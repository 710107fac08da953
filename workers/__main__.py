"""`python -m workers`: one worker process, configured by the environment."""

import os
import sys

import uvloop

from qlaud_actors import log
from qlaud_actors.settings import Settings, SettingsError
from workers.main import run


def main() -> int:
    """Run until stopped; 2 when the environment is not usable."""
    try:
        settings = Settings.from_env(os.environ)  # noqa: TID251 - the process's own entry
        log.configure(settings.log_level, settings.log_format)
        uvloop.run(run(settings))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
