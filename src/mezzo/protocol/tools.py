"""Tools a request offers, the choice between them, and calls that were made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mezzo.protocol.base import Bool, Int, JsonObject, WireModel


class FunctionDef(WireModel):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    parameters: JsonObject
    description: str = ""
    strict: Bool = False


class Tool(WireModel):
    type: Literal["function"] = "function"
    function: FunctionDef


class ToolConfiguration(WireModel):
    exclude: list[str] | None = None
    include: list[str] | None = None
    requires_confirmation: list[str] | None = None


class _HostedTool(WireModel):
    """A tool that the reference runs on its side, elsewhere than on this endpoint."""

    tool_configuration: ToolConfiguration | None = None


class WebSearchTool(_HostedTool):
    type: Literal["web_search"]


class WebSearchPremiumTool(_HostedTool):
    type: Literal["web_search_premium"]


class CodeInterpreterTool(_HostedTool):
    type: Literal["code_interpreter"]


class ImageGenerationTool(_HostedTool):
    type: Literal["image_generation"]


class DocumentLibraryTool(_HostedTool):
    type: Literal["document_library"]
    library_ids: list[str]


class ApiKeyAuthorization(WireModel):
    type: Literal["api-key"]
    value: str = Field(repr=False)


class OAuth2TokenAuthorization(WireModel):
    type: Literal["oauth2-token"]
    value: str = Field(repr=False)


class CustomConnector(_HostedTool):
    type: Literal["connector"]
    connector_id: str
    authorization: (
        Annotated[ApiKeyAuthorization | OAuth2TokenAuthorization, Field(discriminator="type")] | None
    ) = None


def tool_type(value: Any) -> Any:
    """Return the discriminator of a tool, which is `function` where it is left out."""
    if isinstance(value, dict):
        return value.get("type", "function")
    return getattr(value, "type", None)


AnyTool = Annotated[
    Annotated[Tool, Tag("function")]
    | Annotated[WebSearchTool, Tag("web_search")]
    | Annotated[WebSearchPremiumTool, Tag("web_search_premium")]
    | Annotated[CodeInterpreterTool, Tag("code_interpreter")]
    | Annotated[ImageGenerationTool, Tag("image_generation")]
    | Annotated[DocumentLibraryTool, Tag("document_library")]
    | Annotated[CustomConnector, Tag("connector")],
    Discriminator(tool_type),
]


class FunctionName(WireModel):
    name: str


class NamedToolChoice(WireModel):
    """The choice of one function."""

    type: Literal["function"] = "function"
    function: FunctionName


ToolChoice = Literal["auto", "none", "any", "required"] | NamedToolChoice


class FunctionCall(WireModel):
    """A call's name and arguments: a JSON string, or the object itself as the official SDK permits."""

    name: str
    arguments: str | JsonObject


class ToolCall(WireModel):
    """A call that an assistant message made. `id` is the text `null` where a client has none."""

    function: FunctionCall
    id: str = "null"
    type: Literal["function"] = "function"
    index: Int = 0
