"""The identity provider of the settings, and what may be wrong with it: known to servers that have none, too."""

from __future__ import annotations

from dataclasses import dataclass


class ProviderUnavailable(Exception):
    """The provider cannot be reached, or is not what the settings say. The message is for the operator's log."""


class SignOnRefused(Exception):
    """This sign-in is not good: begin again. The message is for the operator's log."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where single sign-on goes. client_secret: None for a public client. redirect_uri: where it comes back to."""

    issuer: str
    client_id: str
    client_secret: str | None
    redirect_uri: str
