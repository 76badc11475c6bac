"""Command lines whose problems are told like all others."""

from __future__ import annotations

import argparse
from typing import NoReturn

from forecaster.errors import ConfigurationError, Problem


class FlagParser(argparse.ArgumentParser):
    """A parser that raises ConfigurationError instead of leaving; flags are written out in full."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError([Problem("command line", f"{message}.", "See --help.")])
