"""`tessera mcp`: the command of the tools in mcp_server, which is met once they are wanted.

Knows nothing of the protocol.
"""

import argparse
from pathlib import Path

from models.errors import TesseraError
from models.extras import brings
from tessera.client import Client
from tessera.client.connection import URL


def main() -> None:
    """The command. Raises TesseraError where the package `mcp` is not installed."""
    parser = argparse.ArgumentParser(
        prog="tessera mcp",
        description="Three tools for assistants over stdio: segment, clusters, similar. They ask a server that runs.",
        epilog="$ tessera mcp --url http://127.0.0.1:8000 --allow ~/photos",
    )
    parser.add_argument("--url", default=URL, help="the server (default: %(default)s)")
    parser.add_argument("--key", help="where the server wants one")
    parser.add_argument(
        "--allow",
        action="append",
        type=Path,
        metavar="DIR",
        help="folders whose images may be read; default: the current one",
    )
    given = parser.parse_args()
    try:
        from tessera.commands.mcp_server import server
    except ModuleNotFoundError as error:
        raise TesseraError(f"the package {error.name!r} is not installed here: {brings('mcp')}") from None
    with Client(given.url, key=given.key) as client:
        server(client, [folder.resolve() for folder in given.allow or [Path.cwd()]]).run()
