"""What runs in the process of identity_provider.py: django-oauth-toolkit, as others run it.

Its code is not ours and shares none with the client under test. It checks PKCE, the client's secret, redirect URIs,
and that a code is used once. Beside its endpoints stands one for tests, and a layer that spoils its answers on demand.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

CLIENT_ID, CLIENT_SECRET = sys.argv[1:3]
PERSONAL = ("email", "email_verified", "given_name", "family_name", "name")


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


server = make_server("127.0.0.1", 0, lambda environ, start_response: [], handler_class=QuietHandler)
issuer = f"http://127.0.0.1:{server.server_port}/o"
key, foreign_key = (JWK.generate(kty="RSA", size=2048) for _ in range(2))

settings.configure(
    SECRET_KEY="of this run",
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},  # for one thread
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    # Tables as they are now, not through their history.
    MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "oauth2_provider")),
    MIDDLEWARE=["tests.provider_site.spoil_and_sign_in"],
    ROOT_URLCONF="tests.provider_site",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # of the client's secret
    USE_TZ=True,
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": key.export_to_pem(private_key=True, password=None).decode(),
        "OIDC_ISS_ENDPOINT": issuer,
        "OAUTH2_VALIDATOR_CLASS": "tests.provider_site.Validator",
        "PKCE_REQUIRED": True,
        "SCOPES": {"openid": "openid", "email": "email", "profile": "profile"},
    },
)
django.setup()

# Only a configured Django can import these.
from django.contrib.auth.models import User  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402

claims_by_subject: dict[str, dict[str, Any]] = {}
state: dict[str, Any] = {"subject": None, "fault": None}


class Validator(OAuth2Validator):
    """Puts what is known of a person into ID tokens and userinfo."""

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        return claims_by_subject[request.user.username]


@csrf_exempt
def be_told(request: HttpRequest) -> HttpResponse:
    told = json.loads(request.body)
    if "redirect_uri" in told:
        Application.objects.filter(client_id=CLIENT_ID).update(redirect_uris=told["redirect_uri"])
    if "person" in told:
        state["subject"] = told["person"]["sub"]
        claims_by_subject[state["subject"]] = told["person"]
    if "fault" in told:
        state["fault"] = told["fault"]
    return HttpResponse(status=204)


urlpatterns = [
    path("test", be_told),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


def spoil_and_sign_in(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Be whoever the tests say, and answer wrongly where they say so. A middleware."""

    def handle(request: HttpRequest) -> HttpResponse:
        if request.path == "/o/authorize/":
            request.user = User.objects.get_or_create(username=state["subject"])[0]
        response = answer(request)
        spoil = {"/o/token/": spoil_token, "/o/userinfo/": spoil_userinfo}.get(request.path)
        if request.path == "/o/.well-known/openid-configuration":
            spoil = spoil_description
        if state["fault"] is None or spoil is None or response.status_code != 200:
            return response
        return spoil(json.loads(response.content), state["fault"])

    return handle


def spoil_description(body: dict[str, Any], fault: str) -> HttpResponse:
    match fault:
        case "no signature":  # and it says that there may be none
            body["id_token_signing_alg_values_supported"] = ["none", "RS256", "HS256"]
        case "another issuer":
            body["issuer"] += "/other"
        case "no URL":
            body["jwks_uri"] = "/keys"
        case "only symmetric":
            body["id_token_signing_alg_values_supported"] = ["none", "HS256"]
        case "no description":
            return HttpResponse("<html>Welcome</html>")
        case "post only":
            body["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    return JsonResponse(body)


def spoil_userinfo(body: dict[str, Any], fault: str) -> HttpResponse:
    return JsonResponse({**body, "sub": "somebody-else"} if fault == "userinfo of another" else body)


NO_TOKENS = {
    "server error": ("a traceback with SECRETS", 500),
    "a list": ("[1]", 200),
    "no JSON": ("<html>SECRETS</html>", 200),
}


def spoil_token(body: dict[str, Any], fault: str) -> HttpResponse:
    if fault in NO_TOKENS:
        text, status = NO_TOKENS[fault]
        return HttpResponse(text, status=status)
    claims = json.loads(JWT(jwt=body["id_token"], key=key).claims)
    header = {"alg": "RS256", "kid": key.thumbprint()}
    signing = key
    match fault:
        case "expired":
            claims |= {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}
        case "wrong nonce":
            claims["nonce"] = "another"
        case "no nonce":
            del claims["nonce"]
        case "wrong issuer":
            claims["iss"] = "https://evil.example"
        case "wrong audience":
            claims |= {"aud": ["another-client"], "azp": CLIENT_ID}
        case "foreign key":
            signing = foreign_key
        case "no signature":
            body["id_token"] = _unsigned(claims)
            return JsonResponse(body)
        case "signed by the secret":
            header["alg"] = "HS256"
            signing = JWK.from_password(CLIENT_SECRET)
        case "no ID token":
            del body["id_token"]
            return JsonResponse(body)
        case "only in userinfo" | "userinfo of another":
            claims = {name: value for name, value in claims.items() if name not in PERSONAL}
    token = JWT(header=header, claims=claims)
    token.make_signed_token(signing)
    body["id_token"] = token.serialize()
    return JsonResponse(body)


def _unsigned(claims: dict[str, Any]) -> str:
    from jwcrypto.common import base64url_encode

    return ".".join(base64url_encode(json.dumps(part)) for part in ({"alg": "none"}, claims)) + "."


def run() -> None:
    """Serve until standard input ends."""
    call_command("migrate", verbosity=0, run_syncdb=True)
    Application.objects.create(
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        algorithm=Application.RS256_ALGORITHM,
        redirect_uris="http://127.0.0.1/not-told-yet",
        skip_authorization=True,
    )
    server.set_app(get_wsgi_application())
    threading.Thread(target=stop_with_input, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.05)


def stop_with_input() -> None:
    sys.stdin.read()
    server.shutdown()
