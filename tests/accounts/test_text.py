"""What people write of themselves, and the roles that they are given."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from mezzo.accounts.errors import Unacceptable
from mezzo.accounts.roles import ORGANIZATION_ROLES, WORKSPACE_ROLES
from mezzo.accounts.text import check_email, check_text, split_emails
from mezzo.protocol.admin.fields import RolesGiven


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("ann@example.org", "ann@example.org"),
        ("  Ann.B+tag@Mail.Example.ORG ", "ann.b+tag@mail.example.org"),
        ("o'hara@xn--bcher-kva.example", "o'hara@xn--bcher-kva.example"),
        ("a" * 64 + "@b.co", "a" * 64 + "@b.co"),
    ],
)
def test_addresses_are_kept_in_lower_case(written: str, kept: str) -> None:
    assert check_email(written) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "ann@",
        "@example.org",
        "ann@localhost",
        "ann@10.0.0.1",
        "ann@@example.org",
        "a..b@example.org",
        ".a@example.org",
        "ann@-example.org",
        "ann@example..org",
        "ann b@example.org",
        "ann@example.org\n",
        "ann@example.org\0",
        "ann@exämple.org",
        "аnn@example.org",  # the first letter is Cyrillic
        "a" * 65 + "@b.co",
        "a@" + "b" * 64 + ".org",
        "a@" + "b." * 125 + "org",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(Unacceptable) as refused:
        check_email(text.removesuffix("\n") + ("\nx" if text.endswith("\n") else ""))
    assert refused.value.param == "email"


def test_a_long_text_is_judged_at_once() -> None:
    before = time.perf_counter()
    for text in ("a" * 1_000_000, "a@" + "a." * 100_000, "a@" + "a-" * 100):
        with pytest.raises(Unacceptable):
            check_email(text)
    assert time.perf_counter() - before < 1


def test_addresses_with_commas_and_line_ends_between_them() -> None:
    good, bad = split_emails("A@b.org, c@d.org\r\na@B.org\n, nobody,c@d.org;e@f.org\n")
    assert good == ["a@b.org", "c@d.org"]
    assert bad == ["nobody", "c@d.org;e@f.org"]


@pytest.mark.parametrize("text", ["", "   ", "a\0b", "a\nb", "a\x1b[31m", "x" * 256])
def test_texts_that_are_not_kept(text: str) -> None:
    with pytest.raises(Unacceptable) as refused:
        check_text(text, param="name")
    assert refused.value.param == "name"


class TestRoles:
    def test_each_has_an_id_of_its_own(self) -> None:
        roles = [*ORGANIZATION_ROLES, *WORKSPACE_ROLES]
        assert len({str(UUID(role.uuid)) for role in roles}) == len(roles) == 14

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            ({}, None),
            ({"role_names": ["member"]}, ("member",)),
            ({"roles": ["M", "A"]}, ("organization_admin", "member")),
            ({"roles": ["2B5205D9-7F0D-4879-8B12-07F3B8894CE9"]}, ("billing_manager",)),
            ({"role_name": "billing_manager"}, ("billing_manager",)),
            ({"role": "B"}, ("billing_manager",)),
            ({"role_names": ["member", "member"], "role": "A"}, ("organization_admin", "member")),
        ],
    )
    def test_come_in_four_forms_and_add_up(self, given: dict, names: tuple[str, ...] | None) -> None:
        assert ORGANIZATION_ROLES.names_of(RolesGiven(**given)) == names

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            ({"role_names": ["member"], "roles": ["M"]}, "roles"),
            ({"role_name": "member", "role": "M"}, "role"),
            ({"role_names": ["owner"]}, "role_names"),
            ({"role_names": ["M"]}, "role_names"),
            ({"role_names": ["MEMBER"]}, "role_names"),
            ({"roles": ["member"]}, "roles"),
            ({"roles": ["m"]}, "roles"),
            ({"roles": ["595bb788-f1c1-4278-afbe-1cc47d6586a4"]}, "roles"),  # a workspace's
            ({"role_names": []}, "role_names"),
            ({"roles": []}, "roles"),
            ({"role": ""}, "role"),
        ],
    )
    def test_what_is_refused_is_named(self, given: dict, param: str) -> None:
        with pytest.raises(Unacceptable) as refused:
            ORGANIZATION_ROLES.names_of(RolesGiven(**given))
        assert refused.value.param == param
