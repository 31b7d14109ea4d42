"""Roles: what a member may do in the organisation and in a workspace. Several of them add up.

Their ids are mezzo's own; clients read them from `GET /v1/admin/roles`. Source of names and legacy letters: the
reference's admin API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mezzo.accounts.errors import Unacceptable
from mezzo.protocol.admin.fields import RolesGiven


@dataclass(frozen=True, slots=True)
class Role:
    """One role. letter: its legacy name."""

    name: str
    uuid: str
    description: str
    letter: str | None = None


class RoleSet:
    """The roles of one kind, strongest first.

    default   of who is given none
    """

    def __init__(self, *roles: Role, default: str) -> None:
        self._roles = roles
        self.default = default

    def __iter__(self) -> Iterator[Role]:
        return iter(self._roles)

    def names_of(self, given: RolesGiven) -> tuple[str, ...] | None:
        """Return the names of the roles that were asked for, strongest first and each once; None if none were.

        Raises: Unacceptable for a role that does not exist, an empty list, or two forms that exclude each other.
        """
        for first, second in (("role_names", "roles"), ("role_name", "role")):
            if getattr(given, first) is not None and getattr(given, second) is not None:
                raise Unacceptable(f"{first} and {second} exclude each other", param=second)
        asked: set[str] = set()
        for param in ("role_names", "roles", "role_name", "role"):
            value = getattr(given, param)
            if value is None:
                continue
            values = [value] if isinstance(value, str) else value
            if not values:
                raise Unacceptable("a member has at least one role", param=param)
            asked |= {self._find(item, param).name for item in values}
        return self._in_order(asked) if asked else None

    def uuids(self, names: Iterable[str]) -> list[str]:
        """Return the ids of roles, strongest first."""
        wanted = set(names)
        return [role.uuid for role in self._roles if role.name in wanted]

    def _find(self, value: str, param: str) -> Role:
        by_name = param.startswith("role_name")
        for role in self._roles:
            keys = (role.name,) if by_name else (role.uuid, role.letter)
            if (value if by_name or value == role.letter else value.lower()) in keys:
                return role
        known = ", ".join(role.name for role in self._roles)
        hint = f"one of {known}" if by_name else "an id of GET /v1/admin/roles"
        raise Unacceptable(f"not a role; give {hint}", param=param)

    def _in_order(self, names: set[str]) -> tuple[str, ...]:
        return tuple(role.name for role in self._roles if role.name in names)


ORGANIZATION_ROLES = RoleSet(
    Role(
        "organization_admin",
        "8d61dba1-0616-44dc-beb2-edc0c163b4c6",
        "Administers members, workspaces, keys, limits and billing",
        "A",
    ),
    Role("billing_manager", "2b5205d9-7f0d-4879-8b12-07f3b8894ce9", "Sees and manages billing only", "B"),
    Role("member", "20247dc5-61e9-46df-8463-c0362722555f", "Uses the products", "M"),
    default="member",
)

WORKSPACE_ROLES = RoleSet(
    Role(
        "workspace_admin",
        "595bb788-f1c1-4278-afbe-1cc47d6586a4",
        "Contributes, and administers members and keys of the workspace",
    ),
    Role(
        "workspace_contributor",
        "440dda7e-7a18-4184-b96c-40e1f407f778",
        "Uses chat, the API and the code product",
    ),
    Role("contributor", "3ec8017f-0ab7-4604-9c25-289c425f1cf5", "Uses chat and the API"),
    Role("dev_contributor", "b56a7f68-3c96-4071-9fe5-82533faf2fb0", "Uses the API and the code product"),
    Role("dev", "b515a8e2-69ef-46ce-b7bf-c3c949f40a48", "Uses the API only"),
    Role("user", "0a30e1d5-5419-4419-9b45-41b653ec02f7", "Uses chat only"),
    Role("mistral_code_user", "564adccd-fff9-4b7d-8a7d-28305e455c22", "Uses the code product only"),
    Role("cloud_user", "d14343df-827b-4dd7-b510-4dc7dd39ce79", "Uses deployments in a cloud"),
    Role("workflow_executor", "a784bf9f-483f-4c50-aba6-d4e8075ba960", "Runs workflows"),
    Role("observability_viewer", "e8971383-55c2-4285-a117-00bb33f7983b", "Sees traces and metrics"),
    Role("billing", "382ea2ed-de66-4555-b777-329e163a0206", "Sees reports of usage and cost"),
    default="workspace_contributor",
)
