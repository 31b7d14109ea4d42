"""Signing in with a password, out, by an invitation; asking who is signed in; changing the password."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mezzo.protocol.sign_in import AcceptInvitationRequest, NoFields, PasswordChange, SignInRequest
from mezzo.server.routes.auth import operations
from mezzo.server.routes.auth.browser import Browser, answer, unstored
from mezzo.server.sign_in import Session, SignIn


def password_routes(sign_in: SignIn, browser: Browser) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post("/auth/sign-in", **operations.SIGN_IN)
    async def begin_session(request: Request) -> Response:
        body = await browser.read(request, SignInRequest)
        session = await sign_in.by_password(
            body.email,
            body.password.get_secret_value(),
            address=browser.address_of(request),
            ended=browser.secret_of(request),
        )
        return welcome(request, session)

    @router.post("/auth/accept-invitation", **operations.ACCEPT_INVITATION)
    async def accept_invitation(request: Request) -> Response:
        body = await browser.read(request, AcceptInvitationRequest)
        session = await sign_in.by_invitation(
            body.secret.get_secret_value(),
            body.first_name,
            body.last_name,
            body.password.get_secret_value(),
            ended=browser.secret_of(request),
        )
        return welcome(request, session)

    @router.post("/auth/sign-out", status_code=204, **operations.SIGN_OUT)
    async def end_session(request: Request) -> Response:
        await browser.read(request, NoFields)
        secret = browser.secret_of(request)
        if secret is not None:
            await sign_in.end(secret)
        response = unstored(Response(status_code=204))
        browser.forget(request, response)
        return response

    @router.get("/auth/session", **operations.SESSION)
    async def read_session(request: Request) -> Response:
        session = await browser.session_of(request)
        return answer(session.user)

    @router.post("/auth/password", status_code=204, **operations.PASSWORD)
    async def change_password(request: Request) -> Response:
        body = await browser.read(request, PasswordChange)
        session = await browser.session_of(request)
        await sign_in.change_password(
            session,
            body.old.get_secret_value(),
            body.new.get_secret_value(),
            address=browser.address_of(request),
        )
        return unstored(Response(status_code=204))

    def welcome(request: Request, session: Session) -> Response:
        response = answer(session.user)
        browser.keep(request, response, session)
        return response

    return router
