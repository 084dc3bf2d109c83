"""``flyteauth create``: a configuration file, a login, an API key."""

from __future__ import annotations

import argparse

from . import create_api_key, create_config, create_login


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    config = kinds.add_parser(
        "config",
        help="write a configuration file, or change one",
        description="Write a configuration file, or change what is said of one.",
        epilog=create_config.EPILOG,
    )
    create_config.add_arguments(config)
    config.set_defaults(create=create_config.main)
    login = kinds.add_parser(
        "login", help="log in: the older spelling", description="The same as flyteauth login."
    )
    create_login.add_arguments(login)
    login.set_defaults(create=create_login.main)
    key = kinds.add_parser(
        "api-key",
        help="create an API key and show it, once",
        description="Create an API key for a service and show it, once.",
        epilog=create_api_key.EPILOG,
    )
    create_api_key.add_arguments(key)
    key.set_defaults(create=create_api_key.main)


def main(options: argparse.Namespace) -> int:
    return int(options.create(options))
