"""Images and documents through the official SDKs, against a server whose model sees.

Its weights are random but for the tests at the end, which ask nano.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from openai import OpenAI
from PIL import Image, ImageDraw
from transformers import PreTrainedTokenizerFast

from mezzo.prompt.media.images import ImageProcessor
from tests import tiny
from tests.prompt.mistral.tokenizers import write_tekken
from tests.sdk.pictures import data_uri, encoded, image
from tests.sdk.serving import KEY, MODEL, Serving, serving
from tests.sdk.web import Page, web_server

VOCAB_SIZE, IMAGE_TOKEN = 8100, 10
CONFIG = tiny.MULTIMODAL_CONFIG | {
    "text_config": tiny.MULTIMODAL_CONFIG["text_config"]
    | {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 8192, "eos_token_id": 2},
    "vision_config": tiny.MULTIMODAL_CONFIG["vision_config"] | {"patch_size": 14, "image_size": 1540},
    "image_token_index": IMAGE_TOKEN,
}
ROOM = 10


def picture(width: int = 300, height: int = 200, colour: str = "navy") -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).ellipse((20, 30, width - 40, height - 10), fill=colour)
    return image


PNG = encoded(picture())
TEXT = {"type": "text", "text": "What is this?"}


def asking(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [TEXT, *chunks]}]


def document(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "document_url", "document_url": url, **fields}


@dataclass
class Seeing:
    """A server whose model sees, the official client, and where its tests may put files for it to fetch."""

    serving: Serving
    client: Mistral
    tokenizer: MistralTokenizer
    web: str
    pages: dict[str, Page]

    def complete(self, messages: list[dict[str, Any]], **fields: Any) -> Any:
        return self.client.chat.complete(
            **{"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": ROOM} | fields
        )

    def answer(self, messages: list[dict[str, Any]], **fields: Any) -> str:
        return str(self.complete(messages, **fields).choices[0].message.content)

    def refusal(self, *chunks: dict[str, Any]) -> dict[str, Any]:
        with pytest.raises(SDKError) as refused:
            self.complete(asking(*chunks))
        assert refused.value.status_code == 400
        return json.loads(refused.value.body)

    def num_images(self, cache: str) -> float:
        text = self.serving.client.get("/metrics").text
        (value,) = re.findall(rf'^mezzo_images_total\{{cache="{cache}",.*\}} (\S+)$', text, re.MULTILINE)
        return float(value)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeing]:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("eyes"), **CONFIG)
    tekken = write_tekken(folder / "tekken.json", "v13")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    pages: dict[str, Page] = {}
    with (
        web_server(pages) as web,
        serving(
            tmp_path_factory.mktemp("home"),
            tmp_path_factory.mktemp("run"),
            weights=folder,
            fetch_allowed_hosts=web.removeprefix("http://"),
        ) as running,
        Mistral(api_key=KEY, server_url=running.url) as client,
    ):
        yield Seeing(running, client, MistralTokenizer.from_file(str(tekken)), web, pages)


def test_the_card_says_that_the_model_sees(seeing: Seeing) -> None:
    card = seeing.client.models.retrieve(model_id=MODEL)
    assert card.capabilities.vision


def test_images_in_every_form_are_the_same_picture(seeing: Seeing) -> None:
    seeing.pages["/picture"] = Page(PNG, {"content-type": "application/octet-stream"})
    expected = seeing.answer(asking(image(data_uri(PNG))))
    forms = [
        image(data_uri(encoded(picture(), "WEBP"), "image/webp")),
        image(data_uri(PNG, "image/jpeg")),  # the content counts, not what it is called
        {"type": "image_url", "image_url": {"url": data_uri(PNG)}},
        {"type": "image_url", "image_url": {"url": data_uri(PNG), "detail": "high"}},
        image(seeing.web + "/picture"),
        {"type": "image_url", "image_url": {"url": seeing.web + "/picture", "detail": "auto"}},
    ]
    assert [seeing.answer(asking(form)) for form in forms] == [expected] * len(forms)


def test_the_picture_matters(seeing: Seeing) -> None:
    colours = ["navy", "red", "yellow", "black"]
    answers = {seeing.answer(asking(image(data_uri(encoded(picture(colour=c)))))) for c in colours}
    assert len(answers) > 1


def test_image_tokens_are_counted_as_the_reference_does(seeing: Seeing) -> None:
    sizes = [(300, 200), (28, 28), (1, 1), (29, 57), (1700, 900), (3, 2000)]
    for width, height in sizes:
        messages = asking(
            image(data_uri(encoded(picture(width + 100, height + 100).resize((width, height)))))
        )
        usage = seeing.complete(messages).usage
        request = ChatCompletionRequest.model_validate({"messages": messages})
        expected = len(seeing.tokenizer.encode_chat_completion(request).tokens)
        assert usage.prompt_tokens == expected, (width, height)


def test_a_stream_says_the_same(seeing: Seeing) -> None:
    messages = asking(image(data_uri(PNG)), {"type": "text", "text": "And this?"}, image(data_uri(PNG)))
    whole = seeing.complete(messages)
    with seeing.client.chat.stream(model=MODEL, messages=messages, temperature=0, max_tokens=ROOM) as events:
        chunks = [event.data for event in events]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_second_turn_about_a_picture_does_not_encode_it_again(seeing: Seeing) -> None:
    first = asking(image(data_uri(encoded(picture(colour="teal")))))
    hits, misses = seeing.num_images("hit"), seeing.num_images("miss")
    answer = seeing.answer(first)
    assert (seeing.num_images("hit"), seeing.num_images("miss")) == (hits, misses + 1)
    turns = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "Sure?"}]
    seeing.answer(turns)
    assert (seeing.num_images("hit"), seeing.num_images("miss")) == (hits + 1, misses + 1)


def test_openais_client_sends_images_too(seeing: Seeing) -> None:
    with OpenAI(api_key=KEY, base_url=seeing.serving.url + "/v1") as client:
        content = [TEXT, {"type": "image_url", "image_url": {"url": data_uri(PNG)}}]
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=ROOM
        )
    assert answer.choices[0].message.content == seeing.answer(asking(image(data_uri(PNG))))


def test_images_of_many_requests_at_once(seeing: Seeing) -> None:
    """Each gets what it gets alone."""
    from concurrent.futures import ThreadPoolExecutor

    colours = ["navy", "red", "yellow", "black", "pink", "gold"]
    questions = [
        asking(image(data_uri(encoded(picture(200 + 40 * i, 300, c))))) for i, c in enumerate(colours)
    ]
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(seeing.answer, questions))
    assert together == [seeing.answer(question) for question in questions]


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (image(data_uri(PNG[:500])), "messages[0].content[1]"),
        (image(data_uri(b"")), "messages[0].content[1]"),
        (image(data_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>")), "messages[0].content[1]"),
        (image("data:image/png;base64,%%%"), "messages[0].content[1]"),
        (image("file:///etc/passwd"), "messages[0].content[1]"),
        (image("http://127.0.0.1:1/x.png"), "could not be fetched"),
        (image("http://169.254.169.254/latest/meta-data"), "could not be fetched"),
        (image("http://localhost/x.png"), "could not be fetched"),
        (image("http://[::1]/x.png"), "could not be fetched"),
        (image("http://2130706433/x.png"), "messages[0].content[1]"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(seeing: Seeing, chunk: dict[str, Any], words: str) -> None:
    body = seeing.refusal(chunk)
    assert (body["type"], body["code"], body["param"]) == ("invalid_request_file", "3310", "messages")
    assert body["message"].startswith("messages[0].content[1]: ")
    assert words in body["message"]
    assert "127.0.0.1" not in body["message"]


def test_a_redirect_to_the_inside_is_refused(seeing: Seeing) -> None:
    seeing.pages["/away"] = Page(b"", {"location": f"{seeing.serving.url}/healthz"}, status=302)
    assert "could not be fetched" in seeing.refusal(image(seeing.web + "/away"))["message"]


def test_too_many_images_are_refused(seeing: Seeing) -> None:
    body = seeing.refusal(*[image(data_uri(PNG))] * 9)
    assert "Too many images" in body["message"]


def test_a_document_is_read(seeing: Seeing) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("helvetica", size=14)
    pdf.multi_cell(0, 8, "The invoice of May is 1,234 dollars. " * 20)
    without = seeing.complete(asking()).usage.prompt_tokens
    chunk = document(data_uri(bytes(pdf.output()), "application/pdf"), document_name="invoice.pdf")
    read = seeing.complete(asking(chunk)).usage.prompt_tokens
    assert read > without + 200
    notes = document(data_uri(b"# Notes\n\nBuy milk.", "text/markdown"))
    assert without < seeing.complete(asking(notes)).usage.prompt_tokens < read


def test_a_scanned_page_is_seen(seeing: Seeing) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.image(picture(600, 800), x=10, y=10, w=150)
    misses = seeing.num_images("miss")
    assert seeing.answer(asking(document(data_uri(bytes(pdf.output()), "application/pdf"))))
    assert seeing.num_images("miss") == misses + 1


def test_a_document_that_cannot_be_read_is_refused(seeing: Seeing) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_encryption(owner_password="a", user_password="b")
    body = seeing.refusal(document(data_uri(bytes(pdf.output()), "application/pdf")))
    assert (body["type"], body["code"]) == ("document_parser_invalid_file", "3740")
    assert body["message"].startswith("messages[0].content[1]: ")


def test_a_prompt_of_pictures_that_does_not_fit_is_refused(seeing: Seeing) -> None:
    large = image(data_uri(encoded(picture(1540, 1540))))
    body = seeing.refusal(large, large, large)
    assert re.search(r"Prompt contains \d+ tokens .* too large for model with 8192", body["message"])


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mistral]:
    """A client of a server whose model has no eyes."""
    changes = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 8192, "eos_token_id": 2}
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("blind"), **changes)
    write_tekken(folder / "tekken.json", "v7")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    with (
        serving(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run"), weights=folder) as running,
        Mistral(api_key=KEY, server_url=running.url) as client,
    ):
        yield client


def test_a_model_without_eyes_refuses_images(blind: Mistral) -> None:
    assert not blind.models.retrieve(model_id=MODEL).capabilities.vision
    with pytest.raises(SDKError) as refused:
        blind.chat.complete(model=MODEL, messages=asking(image(data_uri(PNG))))
    body = json.loads(refused.value.body)
    assert body["code"] == "3051"
    assert "messages[0].content[1]: image_url content is not enabled for this model" in body["message"]


def test_a_model_without_eyes_reads_documents(blind: Mistral) -> None:
    notes = document(data_uri(b"The code word is 'lantern'.", "text/plain"), document_name="notes.txt")
    answer = blind.chat.complete(model=MODEL, messages=asking(notes), temperature=0, max_tokens=ROOM)
    assert answer.usage.prompt_tokens > 20


def test_the_default_weights_see(mistral: Mistral, tokenizer: PreTrainedTokenizerFast) -> None:
    """nano answers with a picture; in its prompt stand the picture's tokens and no system message of its own."""
    card = mistral.models.retrieve(model_id=MODEL)
    assert card.capabilities.vision
    messages = [{"role": "user", "content": [image(data_uri(PNG)), TEXT]}]
    answer = mistral.chat.complete(model=MODEL, messages=messages, temperature=0, max_tokens=ROOM)
    text = f"<|im_start|>user\n{TEXT['text']}<|im_end|>\n<|im_start|>assistant\n"
    num_text_tokens = len(tokenizer(text)["input_ids"])
    processor = ImageProcessor.from_folder(Path(tokenizer.name_or_path))
    assert processor is not None
    rows, columns = processor.grid(300, 200)
    assert answer.usage.prompt_tokens == num_text_tokens + rows * (columns + 1)
    assert answer.choices[0].message.content


def test_the_terminal_chat_shows_the_default_weights_a_picture(server: Serving, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(PNG)
    command = [sys.executable, "-m", "mezzo", "chat", TEXT["text"], "--image", "picture.png"]
    options = ["--temperature", "0", "--max-tokens", str(ROOM), "--url", server.url]
    done = subprocess.run(
        [*command, *options],
        env=os.environ | {"MEZZO_API_KEY": KEY},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    messages = [{"role": "user", "content": [image(data_uri(PNG)), TEXT]}]
    body = server.post({"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": ROOM}).json()
    assert done.stdout == body["choices"][0]["message"]["content"] + "\n"
