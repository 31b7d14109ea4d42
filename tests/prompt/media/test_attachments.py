"""A request's images and documents are loaded before it is admitted, or refused by place and name."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from mezzo.prompt.media.attachments import AttachmentLimits, AttachmentLoader
from mezzo.prompt.media.documents import DocumentLimits
from mezzo.prompt.media.fetch import NOT_FETCHED, Fetcher
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.parts import NO_ATTACHMENTS, Attachments, ImagePart, TextPart
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.errors import (
    DomainError,
    InvalidArguments,
    InvalidDocument,
    InvalidFile,
    ServiceUnavailable,
    TooManyPages,
)

from .pictures import encode, noise
from .test_documents import pdf
from .web_server import Names, OnlyServer, WebServer, drip, ok, serving

PICTURE = encode(noise(20, 10))


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image(url: str, *, short: bool = False) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url if short else {"url": url, "detail": "high"}}


def document(data: bytes | str, name: str | None = None) -> dict[str, Any]:
    url = data if isinstance(data, str) else data_uri(data, "application/pdf")
    return {"type": "document_url", "document_url": url, "document_name": name}


def request(*contents: Any) -> ChatCompletionRequest:
    """Return a request with a user message for each content: text, or chunks."""
    messages = [{"role": "user", "content": content} for content in contents]
    return ChatCompletionRequest.model_validate({"model": "m", "messages": messages})


async def load(*contents: Any, fetcher: Fetcher | None = None, **limits: Any) -> Attachments:
    fetcher = fetcher or Fetcher(enabled=False)
    return await AttachmentLoader(AttachmentLimits(**limits), fetcher).load(request(*contents))


async def refusal(*contents: Any, **options: Any) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await load(*contents, **options)
    assert caught.value.status == 400
    assert caught.value.param == "messages"
    return caught.value


TEXT = {"type": "text", "text": "What is this?"}


class TestLoaded:
    async def test_files_are_fetched_for_a_bounded_number_of_requests(self) -> None:
        holding = most = 0
        may_end = asyncio.Event()

        async def use(loader: AttachmentLoader, wanted: ChatCompletionRequest) -> None:
            nonlocal holding, most
            async with loader.loaded(wanted):
                holding += 1
                most = max(most, holding)
                await may_end.wait()
                holding -= 1

        async with serving(WebServer({"/x.png": ok(PICTURE)})) as web:
            limits = AttachmentLimits(max_concurrent_requests=2)
            loader = AttachmentLoader(limits, Fetcher(policy=OnlyServer(web.port)))
            fetching = request([image(f"http://127.0.0.1:{web.port}/x.png")])
            users = [asyncio.create_task(use(loader, fetching)) for _ in range(5)]
            while holding < 2:  # noqa: ASYNC110  a web server and threads are on the way
                await asyncio.sleep(0.005)
            await asyncio.wait_for(self.pass_by(loader), 5)
            may_end.set()
            await asyncio.gather(*users)
        assert most == 2

    @staticmethod
    async def pass_by(loader: AttachmentLoader) -> None:
        """A request without files, and one that brings its own, wait for nobody."""
        async with loader.loaded(request("hello")) as attachments:
            assert attachments is NO_ATTACHMENTS
        async with loader.loaded(request([image(data_uri(PICTURE))])) as attachments:
            assert len(attachments.images) == 1

    async def test_who_waits_too_long_is_told_to_come_back(self) -> None:
        async with serving(WebServer({"/x.png": ok(PICTURE)})) as web:
            limits = AttachmentLimits(max_concurrent_requests=1, max_wait_s=0.1)
            loader = AttachmentLoader(limits, Fetcher(policy=OnlyServer(web.port)))
            fetching = request([image(f"http://127.0.0.1:{web.port}/x.png")])
            async with loader.loaded(fetching):
                with pytest.raises(ServiceUnavailable):
                    async with loader.loaded(fetching):
                        pytest.fail("there was no place")
            async with loader.loaded(fetching) as attachments:
                assert len(attachments.images) == 1

    async def test_a_refusal_gives_its_place_back(self) -> None:
        loader = AttachmentLoader(AttachmentLimits(max_concurrent_requests=1), Fetcher(enabled=False))
        for _ in range(3):
            with pytest.raises(InvalidFile):
                async with loader.loaded(request([image("http://example.org/x.png")])):
                    pytest.fail("a file that is none was loaded")


class TestLoading:
    async def test_a_request_without_them_costs_nothing(self) -> None:
        thinking = {"type": "thinking", "thinking": [TEXT]}
        reference = {"type": "reference", "reference_ids": [1]}
        assert await load("hello", None, [TEXT, thinking, reference]) is NO_ATTACHMENTS

    @pytest.mark.parametrize("short", [True, False], ids=["string", "object"])
    async def test_both_forms_of_an_image(self, short: bool) -> None:
        loaded = await load("hello", [TEXT, image(data_uri(PICTURE), short=short)])
        assert dict(loaded.by_position) == {(1, 1): (ImagePart(PICTURE, "messages[1].content[1]"),)}

    async def test_images_keep_the_order_of_the_conversation(self) -> None:
        files = [encode(noise(8, 8, seed=seed)) for seed in range(4)]
        loaded = await load(
            [image(data_uri(files[0])), TEXT, image(data_uri(files[1]))],
            [image(data_uri(f)) for f in files[2:]],
        )
        assert [part.data for part in loaded.images] == files

    async def test_the_content_counts_not_the_declared_type(self) -> None:
        loaded = await load([image(data_uri(PICTURE, "image/jpeg")), image(data_uri(PICTURE, "text/html"))])
        assert [part.data for part in loaded.images] == [PICTURE, PICTURE]

    async def test_images_of_assistant_and_tool_messages(self) -> None:
        body = {
            "model": "m",
            "messages": [
                {"role": "assistant", "content": [image(data_uri(PICTURE))]},
                {"role": "tool", "content": [image(data_uri(PICTURE))]},
            ],
        }
        loader = AttachmentLoader(AttachmentLimits(), Fetcher(enabled=False))
        loaded = await loader.load(ChatCompletionRequest.model_validate(body))
        assert sorted(loaded.by_position) == [(0, 0), (1, 0)]

    async def test_a_document_with_its_name(self) -> None:
        loaded = await load([document(pdf("Hello"), "report.pdf"), document(b"# Notes", "notes.md")])
        (report,), (notes,) = loaded.parts(0, 0), loaded.parts(0, 1)
        assert isinstance(report, TextPart)
        assert report.text.startswith("[Document: report.pdf, 1 page]\n")
        assert isinstance(notes, TextPart)
        assert "# Notes" in notes.text

    async def test_a_url_that_occurs_twice_is_fetched_once(self) -> None:
        async with serving(WebServer({"/a": ok(PICTURE), "/b": ok(PICTURE)})) as server:
            fetcher = Fetcher(policy=OnlyServer(server.port), resolver=Names(site="127.0.0.1"))
            a, b = (f"http://site.example:{server.port}/{name}" for name in "ab")
            loaded = await load([image(a), image(b)], [image(a, short=True)], fetcher=fetcher)
        assert len(loaded.images) == 3
        assert server.num_connections == 2
        assert [part.where for part in loaded.images] == [
            "messages[0].content[0]", "messages[0].content[1]", "messages[1].content[0]",
        ]  # fmt: skip

    async def test_files_are_fetched_together_but_not_all_at_once(self) -> None:
        async def slow(writer: asyncio.StreamWriter) -> None:
            most.append(server.num_open)
            await asyncio.sleep(0.1)
            writer.write(ok(PICTURE))

        most: list[int] = []
        async with serving(WebServer({f"/{n}": slow for n in range(8)})) as server:
            fetcher = Fetcher(policy=OnlyServer(server.port), resolver=Names(site="127.0.0.1"))
            chunks = [image(f"http://site.example:{server.port}/{n}") for n in range(8)]
            assert len((await load(chunks, fetcher=fetcher, max_concurrent_fetches=3)).images) == 8
        assert max(most) == 3


class TestRefused:
    async def test_each_failure_names_its_chunk_and_has_the_contracts_code(self) -> None:
        error = await refusal("hello", [TEXT, image(data_uri(b"<svg/>"))])
        assert error.body() == {
            "object": "error",
            "message": "messages[1].content[1]: SVG is not supported; send PNG, JPEG, WEBP or GIF",
            "type": "invalid_request_file",
            "param": "messages",
            "code": "3310",
            "raw_status_code": 400,
        }

    @pytest.mark.parametrize(
        ("chunk", "kind", "words"),
        [
            (image("https://example.com/a.png"), InvalidFile, "this server does not fetch URLs; send the file"),
            (document("https://example.com/a.pdf"), InvalidFile, "this server does not fetch URLs"),
            (image("file:///etc/passwd"), InvalidFile, "a URL must begin with https://, http:// or data:"),
            (document("file:///etc/passwd"), InvalidFile, "a URL must begin with https://, http:// or data:"),
            (image("aGVsbG8="), InvalidFile, "a URL must begin with"),
            (image("data:image/png;base64,%%%"), InvalidFile, "the data: URI is not valid"),
            (image(data_uri(b"")), InvalidFile, "the image is empty"),
            (image(data_uri(PICTURE[:60])), InvalidFile, "the image is truncated"),
            (image(data_uri(PICTURE + bytes(2000))), InvalidFile, "the file is larger than 2000 bytes"),
            (document(b"\0\1"), InvalidDocument, "Document is not a valid PDF"),
            (document(b"%PDF-1.7 broken"), InvalidDocument, "Document is not a valid PDF."),
            (document(pdf("a", "b", "c")), TooManyPages, "This document has 3 pages, which is more"),
            (document(b"x" * 5000), InvalidFile, "the file is larger than 4000 bytes"),
        ],
    )  # fmt: skip
    async def test_reasons(self, chunk: dict[str, Any], kind: type[DomainError], words: str) -> None:
        limits = {
            "images": ImageLimits(max_bytes=2000), "documents": DocumentLimits(max_pages=2, max_bytes=4000),
        }  # fmt: skip
        error = await refusal([TEXT, chunk], **limits)
        assert type(error) is kind
        assert error.message.startswith(f"messages[0].content[1]: {words}")

    async def test_a_url_that_cannot_be_fetched_has_the_contracts_words(self) -> None:
        fetcher = Fetcher(resolver=Names(), min_failure_s=0)
        error = await refusal([image("https://unknown.example/x.png")], fetcher=fetcher)
        assert error.message == f"messages[0].content[0]: {NOT_FETCHED}"

    async def test_more_images_than_allowed(self) -> None:
        error = await refusal([image(data_uri(PICTURE))] * 5, [image(data_uri(PICTURE))] * 4)
        assert isinstance(error, InvalidArguments)
        assert error.message == "Too many images in request: 9, the maximum is 8."
        assert len((await load([image(data_uri(PICTURE))] * 8)).images) == 8

    async def test_more_documents_than_allowed(self) -> None:
        error = await refusal([document(b"a")] * 3, max_documents=2)
        assert error.message == "Too many documents in request: 3, the maximum is 2."

    async def test_more_bytes_in_all_than_allowed(self) -> None:
        files = [encode(noise(16, 16, seed=seed)) for seed in range(6)]
        total = sum(map(len, files))
        chunks = [image(data_uri(file)) for file in files]
        assert len((await load(chunks, max_request_bytes=total)).images) == 6
        error = await refusal(chunks, max_request_bytes=total - 1)
        assert f"the files of this request are larger than {total - 1} bytes" in error.message
        assert isinstance(error, InvalidFile)

    async def test_documents_share_the_limits_of_their_request(self) -> None:
        scans = [document(pdf(noise(20, 20, seed=seed))) for seed in range(2)]
        assert len((await load(scans, documents=DocumentLimits(max_page_images=2))).images) == 2
        error = await refusal(scans, documents=DocumentLimits(max_page_images=1))
        assert error.message == (
            "messages[0].content[1]: The documents of this request have more than 1 pages without text."
        )
        texts = [document(b"a" * 60), document(b"b" * 60)]
        error = await refusal(texts, documents=DocumentLimits(max_characters=150))
        assert isinstance(error, InvalidDocument)
        assert "messages[0].content[1]" in error.message
        assert "more than 150 characters" in error.message

    async def test_drawn_pages_do_not_count_as_images(self) -> None:
        chunks = [document(pdf(noise(20, 20)))] + [image(data_uri(PICTURE))] * 2
        assert len((await load(chunks, max_images=2)).images) == 3

    async def test_one_failure_stops_the_others(self) -> None:
        async with serving(WebServer({"/": drip})) as server:
            fetcher = Fetcher(policy=OnlyServer(server.port), resolver=Names(site="127.0.0.1"))
            chunks = [image(f"http://site.example:{server.port}/"), image("data:,no")]
            error = await asyncio.wait_for(refusal(chunks, fetcher=fetcher), 5)
            assert error.message.startswith("messages[0].content[1]")
            await closed(server)


async def test_cancelling_ends_what_was_begun() -> None:
    async with serving(WebServer({"/": drip})) as server:
        fetcher = Fetcher(policy=OnlyServer(server.port), resolver=Names(site="127.0.0.1"))
        task = asyncio.ensure_future(load([image(f"http://site.example:{server.port}/")], fetcher=fetcher))
        while server.num_open == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed(server)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def closed(server: WebServer) -> None:
    async with asyncio.timeout(5):
        while server.num_open:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
