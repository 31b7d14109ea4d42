"""`mezzo users`: people of the organisation, made, invited and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzo.cli.accounts import accounts, put_json, put_table, read_password, under
from mezzo.cli.keys import AsJson, Config, Home
from mezzo.cli.options import SettingsCommand
from mezzo.cli.output import put, say

if TYPE_CHECKING:
    from datetime import datetime

    from mezzo.accounts.invitations import Invitation
    from mezzo.accounts.users import User

users = typer.Typer(
    name="users",
    no_args_is_help=True,
    help="Make, invite, list and remove users.",
    pretty_exceptions_enable=False,
)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="Their address.")]
EmailOrId = Annotated[str, typer.Argument(metavar="EMAIL", help="Their address or id.")]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE",
        help="`member` (if left out), `billing_manager` or `organization_admin`; several times for several.",
    ),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]


@users.command("list", cls=SettingsCommand)
def list_(
    email: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only those with this in their address.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """List users, and invitations that were not accepted yet.

    mezzo users list

    mezzo users list --json | jq '.[].email'
    """
    from mezzo.accounts.invitations import list_invitations
    from mezzo.accounts.users import list_users

    with accounts(home, config, read_only=True) as opened:
        people = list_users(opened.connection, opened.organization_id, email=email)
        invited = list_invitations(opened.connection, opened.organization_id, email=email)
    rows = [
        *(_user_row(user) for user in people),
        *(_invitation_row(invitation, opened.now) for invitation in invited),
    ]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("EMAIL", "NAME", "STATUS", "ROLES", "WORKSPACES"),
        [
            (
                under(row["email"], row["id"]),
                row["name"],
                row["status"],
                "\n".join(row["roles"]),
                "\n".join(workspace["name"] for workspace in row["workspaces"]) or None,
            )
            for row in rows
        ],
    )


@users.command(cls=SettingsCommand)
def create(
    email: Email,
    first_name: Annotated[str, typer.Option(metavar="NAME", help="Their first name.")],
    last_name: Annotated[str, typer.Option(metavar="NAME", help="Their last name.")],
    role: Roles = None,
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Make a user, who is at once a member of the default workspace; print their id.

    Without a password they sign in by single sign-on, or after `mezzo users password`.

        mezzo users create ann@example.org --first-name Ann --last-name Other --role organization_admin
    """
    from mezzo.accounts.passwords import hash_password
    from mezzo.accounts.users import create_user

    password = read_password(from_stdin=True) if password_stdin else None
    with accounts(home, config) as opened:
        user = create_user(
            opened.connection,
            email=email,
            first_name=first_name,
            last_name=last_name,
            roles=_role_names(role),
            password_hash=None if password is None else hash_password(password),
            **opened.change,
        )
    if as_json:
        put_json(_user_row(user))
    else:
        put(user.id)


@users.command(cls=SettingsCommand)
def invite(
    email: Email,
    role: Roles = None,
    workspace: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name or id of a workspace to join beside the default one."),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Invite somebody and print the secret of the invitation, which makes whoever has it a user.

    It is good for seven days and is shown once. mezzo sends no letters: pass it on. Who signs in by single sign-on
    with the address needs no secret. An earlier invitation to the address is taken back.

        mezzo users invite ann@example.org --workspace Research
    """
    from mezzo.accounts.invitations import invite as invite_address

    with accounts(home, config) as opened:
        invitation, secret = invite_address(
            opened.connection,
            email=email,
            roles=_role_names(role),
            workspace_ids=[opened.workspace(name).id for name in workspace or ()],
            **opened.change,
        )
    if as_json:
        put_json({**_invitation_row(invitation, opened.now), "secret": secret})
        return
    say(f"Invited {invitation.email} until {invitation.expires_at:%Y-%m-%d %H:%M} UTC. The secret:")
    put(secret)


@users.command(cls=SettingsCommand)
def remove(email: EmailOrId, home: Home = None, config: Config = None) -> None:
    """Take somebody out, user or invited: their keys and sessions are good no longer.

    mezzo users remove ann@example.org
    """
    from mezzo.accounts.invitations import list_invitations, revoke_invitation
    from mezzo.accounts.users import remove_user

    address = email.strip().lower()
    with accounts(home, config) as opened:
        open_ones = [
            invitation
            for invitation in list_invitations(opened.connection, opened.organization_id)
            if address in {invitation.email, invitation.id}
        ]
        for invitation in open_ones:
            revoke_invitation(opened.connection, invitation_id=invitation.id, **opened.change)
        if not open_ones or address in opened.emails().values():
            remove_user(opened.connection, user_id=opened.user(address).id, **opened.change)
    say(f"Removed {address}.")


@users.command(cls=SettingsCommand)
def password(
    email: EmailOrId, password_stdin: PasswordStdin = False, home: Home = None, config: Config = None
) -> None:
    """Give somebody a password, asked for twice; their sessions end.

    mezzo users password ann@example.org
    """
    from mezzo.accounts.passwords import hash_password
    from mezzo.accounts.users import set_password

    with accounts(home, config, read_only=True) as opened:
        user = opened.user(email)
    # The database is not held while somebody types.
    typed = read_password(from_stdin=password_stdin)
    with accounts(home, config) as opened:
        set_password(opened.connection, user_id=user.id, password_hash=hash_password(typed), **opened.change)
    say(f"{user.email} has a new password.")


def _role_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Return organisation roles by their names. Raises: Unacceptable, inside `accounts`."""
    from mezzo.accounts.roles import ORGANIZATION_ROLES
    from mezzo.protocol.admin.fields import RolesGiven

    return ORGANIZATION_ROLES.names_of(RolesGiven(role_names=given or None))


def _user_row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": f"{user.first_name} {user.last_name}",
        "status": "active",
        "roles": list(user.roles),
        "workspaces": [
            {"id": membership.workspace_id, "name": membership.workspace_name, "roles": membership.roles}
            for membership in user.memberships
        ],
        "has_password": user.has_password,
        "has_single_sign_on": user.oidc_subject is not None,
        "created_at": user.created_at,
    }


def _invitation_row(invitation: Invitation, now: datetime) -> dict[str, Any]:
    return {
        "id": invitation.id,
        "email": invitation.email,
        "name": None,
        "status": "expired" if invitation.expires_at <= now else "invited",
        "roles": list(invitation.roles),
        "workspaces": [],
        "created_at": invitation.created_at,
        "expires_at": invitation.expires_at,
    }
