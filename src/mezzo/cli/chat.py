"""`mezzo chat`: talk to a server, in a conversation at the terminal or with one question."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezzo.cli.address import server_address
from mezzo.cli.options import read_settings
from mezzo.cli.output import CommandFailed

if TYPE_CHECKING:
    from mezzo.cli.api_client import ApiClient
    from mezzo.cli.conversation import Conversation
    from mezzo.cli.pictures import Picture

DEFAULT_MODEL = "mistral-medium-latest"


def chat(
    *,
    prompt: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            help="One question: the answer is printed and that is all. Left out, standard input is the "
            "question if it is not a terminal.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Server to talk to; the one on this machine if left out.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help="Key to send; MEZZO_API_KEY or this machine's own if left out."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model name.")] = DEFAULT_MODEL,
    system: Annotated[str | None, typer.Option(help="System message: who the model shall be.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_URL",
            help="Picture that goes with the first message: a PNG, JPEG, WEBP or GIF file, or a URL that the "
            "server fetches. Can be given several times.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is the same every time, 1.5 the wildest; the model's own if unset."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Talk to a model in the terminal.

    Answers appear as they are generated. Ctrl-C stops an answer, Ctrl-D ends the conversation, /help lists
    the commands.

        mezzo chat

        mezzo chat "Name three rivers of France."

        mezzo chat --system "Translate to French." < letter.txt

        mezzo chat --image photo.jpg "What is this?"
    """
    from mezzo.cli.api_client import ApiClient
    from mezzo.cli.conversation import Conversation

    question = prompt if prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if question is not None and not question.strip():
        raise CommandFailed("the question is empty", exit_code=2)
    if question is None and not sys.stdout.isatty():
        raise CommandFailed(
            "a conversation needs a terminal",
            hint='Give the question to keep only the answer: mezzo chat "…" > FILE',
            exit_code=2,
        )
    attached = [_read_picture(name) for name in image or ()]
    settings = read_settings({"home": home}, config=config)
    address = server_address(url, api_key, settings)
    conversation = Conversation(
        model, system=system, temperature=temperature, max_tokens=max_tokens, attached=attached
    )
    with ApiClient(address.url, address.key, trust_env=not address.is_here) as client:
        if question is not None:
            _answer_once(client, conversation, question)
        else:
            _converse(client, conversation, settings.home)


def _read_picture(name: str) -> Picture:
    from mezzo.cli.pictures import NotAPicture, read_picture

    try:
        return read_picture(name)
    except NotAPicture as error:
        raise CommandFailed(f"--image: {error}", exit_code=2) from error


def _answer_once(client: ApiClient, conversation: Conversation, question: str) -> None:
    from mezzo.cli.api_client import Piece, RequestFailed
    from mezzo.cli.terminal_chat import printable

    request = conversation.request(conversation.next_question(question))
    clean = printable if sys.stdout.isatty() else str
    has_text = False
    try:
        with closing(client.stream(request)) as events:
            for event in events:
                if isinstance(event, Piece):
                    has_text = True
                    sys.stdout.write(clean(event.text))
                    sys.stdout.flush()
    except RequestFailed as error:
        raise CommandFailed(str(error), hint=error.hint) from error
    finally:
        if has_text:
            sys.stdout.write("\n")
            sys.stdout.flush()


def _converse(client: ApiClient, conversation: Conversation, home: Path) -> None:
    from mezzo.cli.api_client import RequestFailed
    from mezzo.cli.terminal_chat import TerminalChat

    try:
        names = client.model_names()
    except RequestFailed as error:
        raise CommandFailed(str(error), hint=error.hint) from error
    TerminalChat(client, conversation, names, history_file=home / "chat-history").run()
