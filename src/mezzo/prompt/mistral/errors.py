"""What a client is told where mistral_common refuses a request.

mezzo's own validation ran before, with the wording of the contract. What is left are rules of single formats. Messages
of its validators are written for clients and are passed on; everything else may show representations of its objects,
and is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mistral_common import exceptions as mistral

from mezzo.protocol.errors import (
    DomainError,
    InvalidArguments,
    InvalidAssistantMessage,
    InvalidFunctionCall,
    MessageOrder,
)

_MAX_LENGTH = 300
_CANNOT_SHOW = "The prompt format of this model cannot show the messages"
_DOMAIN_ERRORS: dict[type[mistral.MistralCommonException], type[DomainError]] = {
    mistral.InvalidMessageStructureException: MessageOrder,
    mistral.InvalidAssistantMessageException: InvalidAssistantMessage,
    mistral.InvalidFunctionCallException: InvalidFunctionCall,
    mistral.InvalidToolException: InvalidFunctionCall,
    mistral.InvalidToolMessageException: InvalidFunctionCall,
    mistral.InvalidToolSchemaException: InvalidArguments,
    mistral.InvalidUserMessageException: InvalidArguments,
    mistral.InvalidSystemPromptException: InvalidArguments,
    mistral.InvalidRequestException: InvalidArguments,
    mistral.UnsupportedTokenizerFeatureException: InvalidArguments,
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn whatever mistral_common raises into a DomainError. Raises: DomainError."""
    try:
        yield
    except DomainError:
        raise
    except RecursionError as error:
        raise InvalidArguments("The messages or tools are nested too deeply", param="messages") from error
    except Exception as error:  # a foreign program on foreign data: whatever it raises, it refused
        raise _domain_error(error) from error


def _domain_error(error: Exception) -> DomainError:
    if isinstance(error, mistral.MistralCommonException) and (made := _DOMAIN_ERRORS.get(type(error))):
        if made is InvalidArguments:
            is_about_tools = isinstance(error, mistral.InvalidToolSchemaException)
            return made(error.message[:_MAX_LENGTH], param="tools" if is_about_tools else "messages")
        return made(error.message[:_MAX_LENGTH])
    if isinstance(error, mistral.TokenizerException) and "assistant message" in error.message:
        return InvalidAssistantMessage(
            "Assistant message must have either content or tool_calls, but not none."
        )
    return InvalidArguments(_CANNOT_SHOW, param="messages")
