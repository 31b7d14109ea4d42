"""`mezzo keys`: API keys and admin keys, made, listed, limited and revoked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.accounts import accounts, amount_text, put_json, put_table, read_amount, under
from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import CommandFailed, put, say

if TYPE_CHECKING:
    from datetime import date

    from mezzo.accounts.keys import ApiKey

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Make, list, limit and revoke API keys.",
    pretty_exceptions_enable=False,
)

Home = Annotated[Path | None, typer.Option(metavar="FOLDER")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `mezzo keys list` shows it.")]


@keys.command("list", cls=SettingsCommand)
def list_(
    admin: Annotated[bool, typer.Option("--admin", help="List admin keys instead.")] = False,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only keys with this in the name, or at the key's end.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """List the keys that were not revoked.

    mezzo keys list

    mezzo keys list --json | jq '.[] | select(.last_used_at == null)'
    """
    from mezzo.accounts.keys import list_keys

    with accounts(home, config, read_only=True) as opened:
        found = list_keys(
            opened.connection, opened.organization_id, kind="admin" if admin else "api", name=name
        )
        emails = opened.emails()
    rows = [_row(key, emails) for key in found]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("NAME", "KEY", "OF", "GOOD UNTIL", "PER MONTH"),
        [
            (
                under(row["name"] or "–", row["id"]),
                row["hidden_key"],
                under(row["workspace_name"] or "the organization", row["user_email"]),
                row["expiration_date"],
                row["monthly_limit"],
            )
            for row in rows
        ],
    )


@keys.command(cls=SettingsCommand)
def create(
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    workspace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name or id of its workspace; the default one if left out."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(metavar="EMAIL", help="Address or id of whose it is; it is revoked when they leave."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, in UTC, on which it is good.")
    ] = None,
    monthly: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Most that a month of its requests may cost, such as 50."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Make a key for the admin API, /v1/admin, and nothing else.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Make a key and print it. Nobody can read it again: only its hash is kept.

    mezzo keys create --name ci --expires 2027-01-31

    ADMIN_API_KEY=$(mezzo keys create --admin --name terraform)
    """
    from mezzo.accounts.keys import create_admin_key, create_key
    from mezzo.accounts.scope import find_default_workspace

    if admin and (workspace or user or monthly):
        raise CommandFailed(
            "an admin key has no workspace, user or limit: it belongs to the organization", exit_code=2
        )
    expiration = _day(expires)
    limit = None if monthly is None else read_amount(monthly, "--monthly")
    with accounts(home, config) as opened:
        if admin:
            key, secret = create_admin_key(
                opened.connection, name=name, expiration=expiration, **opened.change
            )
        else:
            workspace_id = (
                opened.workspace(workspace).id
                if workspace
                else find_default_workspace(opened.connection, opened.organization_id)
            )
            assert workspace_id is not None, "an organisation has a default workspace"
            key, secret = create_key(
                opened.connection,
                workspace_id=workspace_id,
                user_id=opened.user(user).id if user else None,
                name=name,
                expiration=expiration,
                monthly_limit=limit,
                **opened.change,
            )
        emails = opened.emails()
    if as_json:
        put_json({**_row(key, emails), "key": secret})
        return
    say("This is the only time that the key is shown:")
    put(secret)


@keys.command(cls=SettingsCommand)
def revoke(key_id: KeyId, home: Home = None, config: Config = None) -> None:
    """Make a key useless from now on, everywhere within a second.

    mezzo keys revoke 4b1c7c1e-7d7d-4c58-9b0b-0a1b2c3d4e5f
    """
    from mezzo.accounts.keys import revoke_key

    with accounts(home, config) as opened:
        key = revoke_key(opened.connection, key_id=key_id.lower(), **opened.change)
    say(f"Revoked {key.hidden}.")


@keys.command(cls=SettingsCommand)
def limit(
    key_id: KeyId,
    monthly: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Most that a month of its requests may cost, such as 50."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Take the limit away.")] = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Set what a month of a key's requests may cost, in the currency of the settings.

    mezzo keys limit 4b1c7c1e-7d7d-4c58-9b0b-0a1b2c3d4e5f --monthly 12.50
    """
    from mezzo.accounts.keys import set_key_limit

    if (monthly is None) == (not none):
        raise CommandFailed("give --monthly AMOUNT or --none", exit_code=2)
    amount = None if monthly is None else read_amount(monthly, "--monthly")
    with accounts(home, config) as opened:
        key = set_key_limit(opened.connection, key_id=key_id.lower(), monthly_limit=amount, **opened.change)
    say(f"{key.hidden}: {amount_text(amount) or 'no limit'} a month.")


def _row(key: ApiKey, emails: dict[str, str]) -> dict[str, Any]:
    from datetime import timedelta

    # The last moment at which a key is good is in its last day.
    last = None if key.expires_at is None else key.expires_at - timedelta(microseconds=1)
    return {
        "id": key.id,
        "kind": key.kind,
        "name": key.name,
        "hidden_key": key.hidden,
        "workspace_id": key.workspace_id,
        "workspace_name": key.workspace_name,
        "user_id": key.user_id,
        "user_email": key.user_id and emails.get(key.user_id),
        "monthly_limit": amount_text(key.monthly_limit),
        "created_at": key.created_at,
        "expiration_date": last and last.date(),
        "last_used_at": key.last_used_at,
    }


def _day(text: str | None) -> date | None:
    from datetime import date

    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandFailed(f"--expires: {text} is not a day; write it as 2027-01-31", exit_code=2) from error
