"""Single sign-on by OpenID Connect: the code flow, with PKCE and a nonce, at the one provider of the settings.

Authlib makes the requests and checks the tokens. What it would take from the provider's description of itself without
a question is narrowed here: which algorithms may have signed, and where requests are sent.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from typing import Annotated, Any

import httpx2
from authlib.integrations.starlette_client import OAuth, OAuthError
from joserfc.errors import ClaimError, JoseError
from pydantic import AfterValidator, BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from mezzo.accounts.sign_in import MAX_SUBJECT_LENGTH, Identity
from mezzo.protocol.admin.fields import MAX_NAME_LENGTH
from mezzo.server.provider import Provider, ProviderUnavailable, SignOnRefused

_TIMEOUT_S = 10.0
_LEEWAY_S = 60
# Keys and endpoints are asked for again after this long, in case they changed without a new key id.
_MAX_AGE_S = 3600
# Signatures that the provider alone can make. Not `none`, nor those by the client's own secret.
_ALGORITHMS = frozenset(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)) | {
    "EdDSA",
    "Ed25519",
}
_CODE = re.compile(r"[a-z_]{1,40}")
_PERSONAL = ("email", "email_verified", "given_name", "family_name", "name")
# Errors of the token endpoint that say what is wrong with this server's settings, not with this sign-in.
_MISCONFIGURED = frozenset({"invalid_client", "unauthorized_client"})


def _http_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(str(error)) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("not a URL of the web")
    return url


_Endpoint = Annotated[str, AfterValidator(_http_url)]


class _Metadata(BaseModel):
    """What is used of a provider's description of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: _Endpoint
    token_endpoint: _Endpoint
    jwks_uri: _Endpoint
    userinfo_endpoint: _Endpoint | None = None
    id_token_signing_alg_values_supported: list[str] = ["RS256"]
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]


class SignOn:
    """Sends browsers to the provider and reads what they bring back. For one event loop.

    Both calls use `request.session`, a dictionary that the browser carries in between, sealed.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._client: Any = None
        self._made_at_s = 0.0
        self._making: asyncio.Task[None] | None = None

    async def begin(self, request: Request) -> Response:
        """Return a redirect to the provider. Raises: ProviderUnavailable."""
        client = await self._prepared()
        response: Response = await client.authorize_redirect(request, self._provider.redirect_uri)
        return response

    async def finish(self, request: Request) -> Identity:
        """Return who came back. Raises: SignOnRefused; ProviderUnavailable."""
        if "error" not in request.query_params and not request.query_params.get("code"):
            raise SignOnRefused("it comes without a code")
        client = await self._prepared()
        try:
            token = await client.authorize_access_token(
                request, claims_options=self._claims_options(), leeway=_LEEWAY_S
            )
            if "userinfo" not in token:
                raise SignOnRefused("there is no ID token")
            return self._identity(await self._with_email(client, token))
        except httpx2.HTTPError as error:
            raise ProviderUnavailable(_told(error)) from None
        except OAuthError as error:
            code = error.error if _CODE.fullmatch(str(error.error)) else "another error"
            if code in _MISCONFIGURED and "error" not in request.query_params:
                raise ProviderUnavailable(
                    f"it says {code}: check oidc_client_id and oidc_client_secret"
                ) from None
            raise SignOnRefused(f"it says {code}") from None
        except JoseError as error:
            which = f" ({error.claim})" if isinstance(error, ClaimError) else ""
            raise SignOnRefused(f"the ID token is not good: {error.error}{which}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderUnavailable(
                f"it answers what is no OpenID Connect: {type(error).__name__}"
            ) from None

    def _claims_options(self) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": self._provider.issuer},
            "aud": {"essential": True, "value": self._provider.client_id},
        }

    async def _with_email(self, client: Any, token: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of the ID token, and those of its userinfo endpoint where the email stands only there."""
        claims = dict(token["userinfo"])
        if "email" in claims or client.server_metadata["userinfo_endpoint"] is None:
            return claims
        userinfo = dict(await client.userinfo(token=token))
        if userinfo.get("sub") != claims["sub"]:
            raise SignOnRefused("userinfo is about somebody else")
        # An address and whether it is verified come from one place.
        return {**claims, **{name: userinfo.get(name) for name in _PERSONAL}}

    def _identity(self, claims: dict[str, Any]) -> Identity:
        subject = claims["sub"]
        if (
            not isinstance(subject, str)
            or not subject.isprintable()
            or not 0 < len(subject) <= MAX_SUBJECT_LENGTH
        ):
            raise SignOnRefused("the subject is no text of the length allowed")
        email = claims.get("email")
        first_name, last_name = _names(claims)
        return Identity(
            issuer=self._provider.issuer,
            subject=subject,
            email=email if isinstance(email, str) else None,
            is_email_verified=claims.get("email_verified") is True,
            first_name=first_name,
            last_name=last_name,
        )

    async def _prepared(self) -> Any:
        """Return the client, made anew from time to time; whoever asks while it is made waits for the same one."""
        if self._client is None or time.monotonic() - self._made_at_s > _MAX_AGE_S:
            if self._making is None:
                self._making = asyncio.create_task(self._make())
            await asyncio.shield(self._making)
        return self._client

    async def _make(self) -> None:
        try:
            # Reading the machine's certificates takes a while, and each request would do it anew.
            tls = await asyncio.to_thread(httpx2.create_ssl_context)
            metadata = await _discover(self._provider.issuer, tls)
            self._client = _make_client(self._provider, metadata, tls)
            self._made_at_s = time.monotonic()
        finally:
            self._making = None


async def _discover(issuer: str, tls: ssl.SSLContext) -> _Metadata:
    """Return the provider's description of itself. Raises: ProviderUnavailable."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, verify=tls) as http:
            response = await http.get(url)
            response.raise_for_status()
        metadata = _Metadata.model_validate_json(response.content)
    except httpx2.HTTPError as error:
        raise ProviderUnavailable(_told(error)) from None
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:5])
        raise ProviderUnavailable(f"{url} does not describe a provider ({missing})") from None
    if metadata.issuer != issuer:
        raise ProviderUnavailable(f"it calls itself {metadata.issuer!r}: set oidc_issuer to exactly that")
    endpoints = (
        metadata.authorization_endpoint,
        metadata.token_endpoint,
        metadata.jwks_uri,
        metadata.userinfo_endpoint,
    )
    if issuer.startswith("https:") and not all(e is None or e.startswith("https:") for e in endpoints):
        raise ProviderUnavailable("one of its endpoints is not https")
    return metadata


def _make_client(provider: Provider, metadata: _Metadata, tls: ssl.SSLContext) -> Any:
    algorithms = [a for a in metadata.id_token_signing_alg_values_supported if a in _ALGORITHMS]
    if not algorithms:
        raise ProviderUnavailable("it signs ID tokens by no algorithm that is accepted here")
    return OAuth().register(
        "provider",
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        authorize_url=metadata.authorization_endpoint,
        access_token_url=metadata.token_endpoint,
        jwks_uri=metadata.jwks_uri,
        userinfo_endpoint=metadata.userinfo_endpoint,
        id_token_signing_alg_values_supported=algorithms,
        client_kwargs={
            "scope": "openid email profile",
            "code_challenge_method": "S256",
            "token_endpoint_auth_method": _auth_method(provider, metadata),
            "timeout": _TIMEOUT_S,
            "verify": tls,
        },
    )


def _auth_method(provider: Provider, metadata: _Metadata) -> str:
    if provider.client_secret is None:
        return "none"
    for method in ("client_secret_basic", "client_secret_post"):
        if method in metadata.token_endpoint_auth_methods_supported:
            return method
    raise ProviderUnavailable("it takes no client secret by basic authentication or by post")


def _names(claims: dict[str, Any]) -> tuple[str, str]:
    """Return a first and a last name, as well as they are told: accounts have both, people do not."""
    given, family, whole = (_name(claims.get(key)) for key in ("given_name", "family_name", "name"))
    if not given and not family:
        given, _, family = whole.partition(" ")
    return given or _name(claims.get("email")).partition("@")[0] or "-", family or "-"


def _name(value: object) -> str:
    words = value.split() if isinstance(value, str) else []
    return "".join(character for character in " ".join(words) if character.isprintable())[:MAX_NAME_LENGTH]


def _told(error: httpx2.HTTPError) -> str:
    """Return what went wrong without what was sent: no address with its query, no body."""
    if isinstance(error, httpx2.HTTPStatusError):
        return f"it answers {error.response.status_code} at {error.request.url.path}"
    return f"it cannot be reached: {type(error).__name__}"
