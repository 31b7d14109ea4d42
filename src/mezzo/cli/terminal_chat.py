"""The conversation at the terminal: reading lines, running commands, showing answers as they come."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, NestedCompleter, PathCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from mezzo.cli.api_client import ApiClient, Ending, Piece, RequestFailed
from mezzo.cli.conversation import Conversation, Exchange, Question
from mezzo.cli.pictures import NotAPicture, read_picture

_PROMPT = "› "
_CONTINUED = "… "
_MAX_TEMPERATURE = 1.5
_ENDINGS = {
    "length": "cut at the token limit",
    "model_length": "the context is full; /clear starts anew",
    "stop": "",
}
# Control characters but tab and newline: text from a model must not steer the terminal.
_CONTROL = {code: "�" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}

HELP = """\
/system TEXT     set the system message; /system alone removes it
/image PATH      attach a picture to the next message, a file or a URL; /image alone takes them off
/model NAME      use another model; /model alone lists the names
/temperature X   0 … 1.5; /temperature alone leaves it to the model
/clear           forget what was said
/retry           ask the last question again
/save FILE       write the conversation: Markdown, or the API's messages for FILE.json
/usage           tokens used in this session
/exit            leave, like Ctrl-D
Enter sends; Alt-Enter, or \\ at the end of a line, starts a new line. // sends a message that starts with /.
Ctrl-C stops an answer."""


def printable(text: str) -> str:
    """Replace the control characters that a terminal would obey."""
    return text.translate(_CONTROL)


class TerminalChat:
    """One session: a conversation with a server, until the person leaves."""

    def __init__(
        self, client: ApiClient, conversation: Conversation, model_names: Sequence[str], *, history_file: Path
    ) -> None:
        """history_file: where the lines that were entered are kept, readable by their owner only."""
        self._client = client
        self._conversation = conversation
        self._model_names = model_names
        self._last_question: Question | None = None
        self._is_over = False
        self._console = Console(highlight=False)
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "system": self._system,
            "image": self._image,
            "model": self._model,
            "temperature": self._temperature,
            "clear": self._clear,
            "retry": self._retry,
            "save": self._save,
            "usage": self._usage,
            "exit": self._exit,
        }
        history_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        history_file.touch(mode=0o600)
        self._input: PromptSession[str] = PromptSession(
            _PROMPT,
            history=FileHistory(str(history_file)),
            multiline=True,
            prompt_continuation=lambda width, line_number, wrap_count: _CONTINUED,
            key_bindings=_key_bindings(),
            completer=self._completer(),
        )

    def run(self) -> None:
        """Talk until /exit or Ctrl-D."""
        self._note(f"{self._conversation.model} at {self._client.base_url}. /help for help, Ctrl-D to leave.")
        self._note_attached()
        while not self._is_over:
            try:
                line = self._input.prompt()
                self._handle(line)
            except KeyboardInterrupt:
                self._note("Ctrl-D or /exit leaves.")
            except EOFError:
                break

    def _handle(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/") and not text.startswith("//"):
            name, _, argument = text[1:].partition(" ")
            if command := self._commands.get(name):
                command(argument.strip())
            else:
                close = difflib.get_close_matches(name, self._commands, n=1)
                meant = f"Did you mean /{close[0]}?" if close else "/help lists the commands."
                self._error(f"there is no command /{name}. {meant}")
        elif text:
            said = text.removeprefix("/") if text.startswith("//") else line
            self._ask(self._conversation.next_question(said))

    def _ask(self, question: Question) -> None:
        self._last_question = question
        answer: list[str] = []
        ending: Ending | None = None
        started_s = time.monotonic()
        try:
            with closing(self._client.stream(self._conversation.request(question))) as events:
                for event in events:
                    if isinstance(event, Piece):
                        answer.append(event.text)
                        sys.stdout.write(printable(event.text))
                        sys.stdout.flush()
                    else:
                        ending = event
        except KeyboardInterrupt:
            pass  # the connection is closed, and with it the work for this answer ends on the server
        except RequestFailed as error:
            if answer:
                sys.stdout.write("\n")
            self._error(f"{error}. {error.hint or '/retry asks again.'}")
            return
        sys.stdout.write("\n")
        if ending is not None:
            self._conversation.num_prompt_tokens += ending.num_prompt_tokens
            self._conversation.num_completion_tokens += ending.num_completion_tokens
            self._note(_summary(ending, time.monotonic() - started_s))
        elif answer:
            self._note("stopped; the answer stays in the conversation as far as it came")
        else:
            self._note("stopped before the answer began; the question is taken back, /retry asks it again")
            return
        self._conversation.exchanges.append(Exchange(question, "".join(answer), is_stopped=ending is None))

    def _help(self, argument: str) -> None:
        self._console.print(HELP, markup=False)

    def _system(self, argument: str) -> None:
        self._conversation.system = argument or None
        self._note("system message set" if argument else "no system message")

    def _image(self, argument: str) -> None:
        attached = self._conversation.attached
        if not argument:
            attached.clear()
            self._note("no picture")
            return
        try:
            attached.append(read_picture(argument))
        except NotAPicture as error:
            self._error(str(error))
        else:
            self._note_attached()

    def _note_attached(self) -> None:
        if names := [picture.name for picture in self._conversation.attached]:
            self._note(f"with the next message: {', '.join(names)}")

    def _model(self, argument: str) -> None:
        if not argument:
            self._note(", ".join(self._model_names))
        elif argument not in self._model_names:
            self._error(f"the server has no model {argument}. /model lists the names.")
        else:
            self._conversation.model = argument
            self._note(f"now talking to {argument}")

    def _temperature(self, argument: str) -> None:
        if not argument:
            self._conversation.temperature = None
            self._note("temperature: the model's own")
            return
        try:
            value = float(argument)
        except ValueError:
            value = -1.0
        if 0 <= value <= _MAX_TEMPERATURE:
            self._conversation.temperature = value
            self._note(f"temperature: {value:g}")
        else:
            self._error(f"a temperature is a number from 0 to {_MAX_TEMPERATURE}")

    def _clear(self, argument: str) -> None:
        self._conversation.exchanges.clear()
        self._note("forgotten" + ("; the system message stays" if self._conversation.system else ""))

    def _retry(self, argument: str) -> None:
        if self._last_question is None:
            self._error("there is no question to ask again")
            return
        exchanges = self._conversation.exchanges
        if exchanges and exchanges[-1].question == self._last_question:
            exchanges.pop()
        self._ask(self._last_question)

    def _save(self, argument: str) -> None:
        if not argument:
            self._error("/save needs a file name")
            return
        try:
            self._conversation.save(Path(argument).expanduser())
        except FileExistsError:
            self._error(f"{argument} exists; choose another name")
        except OSError as error:
            self._error(f"{argument} cannot be written: {error.strerror or error}")
        else:
            self._note(f"saved to {argument}")

    def _usage(self, argument: str) -> None:
        talk = self._conversation
        self._note(
            f"{talk.num_prompt_tokens} prompt + {talk.num_completion_tokens} completion tokens in this "
            "session, without answers that were stopped"
        )

    def _exit(self, argument: str) -> None:
        self._is_over = True

    def _completer(self) -> Completer:
        completers = {
            "model": NestedCompleter.from_nested_dict(dict.fromkeys(self._model_names)),
            "image": PathCompleter(expanduser=True),
        }
        return NestedCompleter({f"/{name}": completers.get(name) for name in self._commands})

    def _note(self, message: str) -> None:
        self._console.print(message, style="dim", markup=False)

    def _error(self, message: str) -> None:
        self._console.print(f"error: {message}", style="red", markup=False)


def _summary(ending: Ending, duration_s: float) -> str:
    per_s = ending.num_completion_tokens / duration_s if duration_s > 0 else 0.0
    parts = [
        f"{ending.num_prompt_tokens} + {ending.num_completion_tokens} tokens",
        f"{duration_s:.1f} s ({per_s:.0f} tokens/s)",
        _ENDINGS.get(ending.finish_reason, ending.finish_reason),
    ]
    return " · ".join(part for part in parts if part)


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
