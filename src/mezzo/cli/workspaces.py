"""`mezzo workspaces`: workspaces, their members and their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.accounts import Accounts, accounts, amount_text, put_json, put_table, read_amount, under
from mezzo.cli.keys import AsJson, Config, Home
from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import CommandFailed, put, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mezzo.accounts.access import RateLimits
    from mezzo.accounts.workspaces import Workspace

workspaces = typer.Typer(
    name="workspaces",
    no_args_is_help=True,
    help="Make, list, limit and archive workspaces.",
    pretty_exceptions_enable=False,
)

NameOrId = Annotated[str, typer.Argument(metavar="WORKSPACE", help="Its name or id.")]


@workspaces.command("list", cls=SettingsCommand)
def list_(
    archived: Annotated[bool, typer.Option("--archived", help="List archived ones too.")] = False,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """List workspaces with their limits. Amounts are in the currency of the settings.

    mezzo workspaces list
    """
    from mezzo.accounts.access import load_rate_limits
    from mezzo.accounts.workspaces import list_workspaces

    with accounts(home, config, read_only=True) as opened:
        found = list_workspaces(opened.connection, opened.organization_id, include_archived=archived)
        rows = [_row(each, load_rate_limits(opened.connection, each.id)) for each in found]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("NAME", "MEMBERS", "PER MONTH", "TIER", "STATUS"),
        [
            (
                under(row["name"], row["id"]),
                row["num_members"],
                row["monthly_limit"],
                "priority" if row["has_priority"] else "standard",
                "archived" if row["archived_at"] else "default" if row["is_default"] else "open",
            )
            for row in rows
        ],
    )


@workspaces.command(cls=SettingsCommand)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    icon: Annotated[str | None, typer.Option(metavar="ICON", help="One or two characters.")] = None,
    admin: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Address or id of who administers it.")
    ] = None,
    all_members: Annotated[
        bool, typer.Option("--all-members", help="Add everybody of the organization.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Make a workspace and print its id.

    mezzo workspaces create Research --admin ann@example.org
    """
    from mezzo.accounts.workspaces import create_workspace

    with accounts(home, config) as opened:
        workspace = create_workspace(
            opened.connection,
            name=name,
            description=description,
            icon=icon,
            admin_user_id=opened.user(admin).id if admin else None,
            add_all_members=all_members,
            **opened.change,
        )
    if as_json:
        put_json(_row(workspace, {}))
    else:
        put(workspace.id)


@workspaces.command(cls=SettingsCommand)
def archive(workspace: NameOrId, home: Home = None, config: Config = None) -> None:
    """Close a workspace for good: its keys are revoked; usage and invoices stay.

    mezzo workspaces archive Research
    """
    from mezzo.accounts.workspaces import archive_workspace

    with accounts(home, config) as opened:
        found = opened.workspace(workspace)
        archive_workspace(opened.connection, workspace_id=found.id, **opened.change)
    say(f"Archived {found.name}.")


@workspaces.command(cls=SettingsCommand)
def members(
    workspace: NameOrId,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="EMAIL", help="Add a user, or give a member other roles; may come again."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="Role of those added, `workspace_contributor` if left out; several times for several.",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="EMAIL", help="Take a member out; may come again.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """List the members of a workspace, after adding and removing some.

    Keys of who is taken out stay good: `mezzo keys list` and `revoke` are for them.

        mezzo workspaces members Research --add ann@example.org --role workspace_admin
    """
    from mezzo.accounts.errors import Conflict
    from mezzo.accounts.members import list_members, remove_members, set_members
    from mezzo.accounts.roles import WORKSPACE_ROLES
    from mezzo.protocol.admin.fields import RolesGiven

    if role and not add:
        raise CommandFailed("--role is for those that --add names", exit_code=2)
    with accounts(home, config) as opened:
        found = opened.workspace(workspace)
        roles = WORKSPACE_ROLES.names_of(RolesGiven(role_names=role or None))
        if add:
            wanted = {opened.user(email).id: roles for email in add}
            set_members(opened.connection, workspace_id=found.id, members=wanted, **opened.change)
        if remove:
            user_ids = [opened.user(email).id for email in remove]
            absent = remove_members(
                opened.connection, workspace_id=found.id, user_ids=user_ids, **opened.change
            )
            if absent:
                emails = opened.emails()
                raise Conflict(f"{', '.join(emails[user_id] for user_id in absent)}: not a member")
        listed = list_members(opened.connection, opened.organization_id, found.id)
    if as_json:
        put_json(
            [
                {"user_id": m.user_id, "email": m.email, "roles": m.roles, "added_at": m.added_at}
                for m in listed
            ]
        )
    else:
        put_table(("EMAIL", "ROLES"), [(member.email, ", ".join(member.roles)) for member in listed])


@workspaces.command(cls=SettingsCommand)
def limit(
    workspace: NameOrId,
    monthly: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Most that a month of it may cost, such as 50.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Model that the limits below are for; all without limits of their own if left out.",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Requests of one model in any 60 s; 0 for never.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Tokens of one model in any 60 s.")
    ] = None,
    tokens_per_month: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Tokens of one model in a month, in UTC.")
    ] = None,
    priority: Annotated[
        bool | None,
        typer.Option(
            "--priority/--no-priority",
            help="Serve and bill at the priority tier what leaves it to the server.",
        ),
    ] = None,
    none: Annotated[
        bool,
        typer.Option("--none", help="Take all limits away, or with --model those of that model."),
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Set limits of a workspace; those that are not named stay. Then show them all.

    mezzo workspaces limit Research --monthly 50 --requests-per-minute 60

    mezzo workspaces limit Research --model mistral-medium-2505 --tokens-per-month 10000000

    mezzo workspaces limit Research --none
    """
    from mezzo.accounts.access import EVERY_MODEL, load_rate_limits
    from mezzo.accounts.workspaces import find_workspace, set_priority

    rates = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_month": tokens_per_month,
    }
    given = {name: value for name, value in rates.items() if value is not None}
    _check_combination(none=none, monthly=monthly, model=model, has_rates=bool(given))
    amount = None if monthly is None else read_amount(monthly, "--monthly")
    with accounts(home, config) as opened:
        found = opened.workspace(workspace)
        if none:
            _take_away(opened, found, model)
        if amount is not None:
            _set_monthly(opened, found, amount)
        if given:
            _set_rates(opened, found, model or EVERY_MODEL, given)
        if priority is not None:
            set_priority(opened.connection, workspace_id=found.id, has_priority=priority, **opened.change)
        workspace_now = find_workspace(opened.connection, opened.organization_id, found.id)
        rules = load_rate_limits(opened.connection, found.id)
    row = _row(workspace_now, rules)
    if as_json:
        put_json(row)
        return
    put(
        f"{row['name']}: {row['monthly_limit'] or 'no limit'} a month, "
        f"{'priority' if row['has_priority'] else 'standard'} tier"
    )
    if rules:
        put_table(
            ("MODEL", "REQUESTS/MIN", "TOKENS/MIN", "TOKENS/MONTH"),
            [
                (model_id, rule.requests_per_minute, rule.tokens_per_minute, rule.tokens_per_month)
                for model_id, rule in sorted(rules.items())
            ],
        )


def _check_combination(*, none: bool, monthly: str | None, model: str | None, has_rates: bool) -> None:
    if none and (monthly is not None or has_rates):
        raise CommandFailed("--none takes limits away; it goes with --model alone", exit_code=2)
    if model is not None and not (has_rates or none):
        raise CommandFailed(
            "--model is for --requests-per-minute, --tokens-per-minute, --tokens-per-month or --none",
            exit_code=2,
        )
    if model is not None and not none:
        _check_model(model)


def _check_model(model: str) -> None:
    """Check that limits are set on a model itself: its aliases share them. Raises: CommandFailed."""
    from mezzo.catalog.cards import load_catalog

    card = load_catalog().find(model)
    if card is None:
        raise CommandFailed(f"--model: {model} is not in the catalog", exit_code=2)
    if card.id != model:
        raise CommandFailed(f"--model: {model} is an alias", hint=f"Use its id, {card.id}.", exit_code=2)


def _take_away(opened: Accounts, workspace: Workspace, model: str | None) -> None:
    from mezzo.accounts.errors import NotThere
    from mezzo.accounts.limits import list_rate_limits, set_rate_limits, set_workspace_limit

    rules = list_rate_limits(opened.connection, opened.organization_id, workspace.id)
    if model is not None and model not in rules:
        raise NotThere(f"{workspace.name} has no limits for {model}")
    for model_id in rules if model is None else [model]:
        set_rate_limits(
            opened.connection, workspace_id=workspace.id, model_id=model_id, limits=None, **opened.change
        )
    if model is None:
        set_workspace_limit(opened.connection, workspace_id=workspace.id, monthly_limit=None, **opened.change)


def _set_monthly(opened: Accounts, workspace: Workspace, amount: int) -> None:
    from mezzo.accounts.limits import set_workspace_limit

    set_workspace_limit(opened.connection, workspace_id=workspace.id, monthly_limit=amount, **opened.change)


def _set_rates(opened: Accounts, workspace: Workspace, model_id: str, given: dict[str, int]) -> None:
    from dataclasses import replace

    from mezzo.accounts.access import RateLimits
    from mezzo.accounts.limits import list_rate_limits, set_rate_limits

    rules = list_rate_limits(opened.connection, opened.organization_id, workspace.id)
    changed = replace(rules.get(model_id) or RateLimits(), **given)
    set_rate_limits(
        opened.connection, workspace_id=workspace.id, model_id=model_id, limits=changed, **opened.change
    )


def _row(workspace: Workspace, rules: Mapping[str, RateLimits]) -> dict[str, Any]:
    return {
        "id": workspace.id,
        "name": workspace.name,
        "description": workspace.description,
        "icon": workspace.icon,
        "is_default": workspace.is_default,
        "num_members": workspace.num_members,
        "monthly_limit": amount_text(workspace.monthly_limit),
        "has_priority": workspace.has_priority,
        "rate_limits": {
            model_id: {
                "requests_per_minute": rule.requests_per_minute,
                "tokens_per_minute": rule.tokens_per_minute,
                "tokens_per_month": rule.tokens_per_month,
            }
            for model_id, rule in sorted(rules.items())
        },
        "created_at": workspace.created_at,
        "archived_at": workspace.archived_at,
    }
