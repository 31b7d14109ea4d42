"""The operator's settings: one typed object, read once at the edge and handed down.

Each setting has one name everywhere: `kv_cache_tokens` in mezzo.toml, `MEZZO_KV_CACHE_TOKENS` in the
environment, `--kv-cache-tokens` where a command takes it. Later sources win: defaults, the file, the
environment, the command line. A name that is not a setting, or a value that does not fit, is an error that
says where it stands.
`docs/settings.md` is generated from this file by scripts/settings_doc.py.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from mezzo.kit.secrets import machine_key, new_secret
from mezzo.prompt.media.addresses import AllowedHost
from mezzo.store.url import check_redis_url, check_url, sqlite_url

CONFIG_FILE = "mezzo.toml"
CONFIG_VARIABLE = "MEZZO_CONFIG"
ENV_PREFIX = "MEZZO_"
# The model id that `weights` serves when `models` is not set: the family's current release.
DEFAULT_MODEL_ID = "mistral-medium-2505"

MIN_SECRET_LENGTH = 32

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")
_ORIGIN = re.compile(r"https?://[^/\s*]+")
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SettingsError(ValueError):
    """A setting that cannot be used. The message is one line: where it stands, and what is wrong."""


def _usable_key(key: SecretStr | None) -> SecretStr | None:
    if key is not None:
        text = key.get_secret_value()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("a key is one or more printable ASCII characters without spaces")
    return key


def _usable_database(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        check_url(url.get_secret_value())
    return url


def _usable_redis(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        check_redis_url(url.get_secret_value())
    return url


def _usable_secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_LENGTH:
        raise ValueError(f"a secret has at least {MIN_SECRET_LENGTH} characters")
    return secret


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _list_from_text(value: object) -> object:
    # The environment and the command line have no lists: there they are written with commas.
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _table_from_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError('write it as JSON, e.g. {"mistral-medium-2505": "nano"}') from error


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin such as https://example.org, nor *")
    return origins


def _public_url(url: str | None) -> str | None:
    if url is not None and not _ORIGIN.fullmatch(url):
        raise ValueError("write it as a browser does, without a path: https://mezzo.example.org")
    return None if url is None else url.lower()


def _issuer(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username or not url.isprintable():
        raise ValueError("write it as the provider does: https://login.example.org/realms/main")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("an issuer's URL begins with https://, unless it is on this machine")
    return url


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"{network!r} is no address or network such as 10.0.0.0/8") from None
    return networks


def _domains(domains: tuple[str, ...]) -> tuple[str, ...]:
    folded = tuple(domain.lower() for domain in domains)
    for domain in folded:
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{domain!r} is not a domain such as example.org")
    return folded


def _allowed_hosts(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        AllowedHost.parse(entry)
    return entries


def _known_device(device: str) -> str:
    if not _DEVICE.fullmatch(device):
        raise ValueError("a device is auto, cpu, cuda, cuda:N or mps")
    return device


def _lowercase(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseModel):
    """What the operator may choose. Immutable; made by `load_settings`, or in code from what is passed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("mezzo"),
        description="Folder of converted weights and of this machine's API key; the platform's cache folder "
        "if unset.",
    )
    database_url: Annotated[SecretStr | None, AfterValidator(_usable_database)] = Field(
        default=None,
        description="Where accounts and books are kept: `sqlite:////absolute/path` or "
        "`postgresql://USER:PASSWORD@HOST/NAME`. If unset, `mezzo.db` in `home` where that is set, else in the "
        "platform's folder for data.",
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(_usable_redis)] = Field(
        default=None,
        description="Redis in which several servers count rate limits together: "
        "`redis://USER:PASSWORD@HOST:PORT/NUMBER`, the same with `rediss://` for TLS, or `unix:///PATH`. If unset, "
        "each server counts for itself.",
    )
    secret_key: Annotated[SecretStr | None, AfterValidator(_usable_secret)] = Field(
        default=None,
        description="The installation's secret, at least 32 characters: it encrypts answers that are kept for retries "
        "and signs cookies. All servers on one database share it. If unset, one is made, and kept in the file "
        "`secret-key` in the folder of `mezzo.db`.",
    )
    currency: Literal["USD", "EUR"] = Field(
        default="USD",
        description="Currency of prices, limits and invoices; fixed by the first start on a database.",
    )
    host: Annotated[str, Field(min_length=1)] = Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every network of this machine."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
    )
    api_key: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        default=None,
        description="The key that clients must send; if unset, one is made for this machine and kept in "
        "`home`.",
    )
    public_url: Annotated[str | None, AfterValidator(_public_url)] = Field(
        default=None,
        description="Where browsers reach this server, such as `https://mezzo.example.org`. Single sign-on comes back "
        "to it; set it behind a TLS proxy.",
    )
    trusted_proxies: Annotated[
        tuple[str, ...], BeforeValidator(_list_from_text), AfterValidator(_networks)
    ] = Field(
        default=(),
        description="Addresses and networks of proxies before this server, such as `127.0.0.1` or `10.0.0.0/8`: their "
        "`X-Forwarded-For` says whose failed sign-ins are counted together.",
    )
    session_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        default=12, description="Hours after which people who signed in must do so again."
    )
    oidc_issuer: Annotated[str | None, AfterValidator(_issuer)] = Field(
        default=None,
        description="The OpenID Connect provider of single sign-on, exactly as it names itself "
        "(`docs/sign-in.md`); none if unset.",
    )
    oidc_client_id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The name that the provider has given this server."
    )
    oidc_client_secret: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        default=None,
        description="What this server proves itself with to the provider; unset for a public client.",
    )
    oidc_allowed_domains: Annotated[
        tuple[str, ...], BeforeValidator(_list_from_text), AfterValidator(_domains)
    ] = Field(
        default=(),
        description="Domains whose addresses, verified by the provider, may join the first organisation as members "
        "without an invitation.",
    )
    weights: Annotated[str, Field(min_length=1)] = Field(
        default="nano",
        description="Weights to serve: a name such as nano, hf:ORG/NAME, or a local folder.",
    )
    models: Annotated[
        dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]],
        BeforeValidator(_table_from_text),
    ] = Field(
        default_factory=dict,
        description="Which weights serve which model id, in place of `weights`, which serves "
        f"{DEFAULT_MODEL_ID}. `upstream:http://HOST/v1#MODEL` has another server answer: docs/upstream.md.",
    )
    upstream_api_key: Annotated[SecretStr | None, AfterValidator(_usable_key)] = Field(
        default=None, description="The key that upstreams are sent, all of them; none if unset."
    )
    upstream_max_requests: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="Most choices that an upstream generates for us at the same time; others wait here.",
    )
    upstream_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=300.0, description="Seconds of silence after which the answer of an upstream is given up."
    )
    device: Annotated[str, AfterValidator(_known_device)] = Field(
        default="auto", description="Where to compute: auto, cpu, cuda, cuda:N or mps."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = Field(
        default="auto",
        description="Number format of the weights; auto suits the device: int8 on CPUs with AVX2 (matrices that were "
        "made of four bits keep four), else bfloat16 or float32.",
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="CPU threads of the engine; all cores if unset."
    )
    max_num_seqs: Annotated[int, Field(ge=1)] = Field(
        default=32, description="Most sequences that generate at the same time."
    )
    max_step_tokens: Annotated[int, Field(ge=1)] = Field(
        default=512,
        description="Most tokens in one engine step: the chunk in which a long prompt is read between the "
        "running sequences.",
    )
    kv_cache_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Token positions in the KV cache; chosen from the free memory if unset."
    )
    block_size: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Token positions in one block of the KV cache."
    )
    max_draft_tokens: Annotated[int, Field(ge=0)] = Field(
        default=32,
        description="Guessed tokens that one step may check: predicted outputs, and what stood after the same words "
        "before. 0 guesses nothing.",
    )
    fim: bool = Field(
        default=False,
        description="Let weights fill in the middle (POST /v1/fim/completions) where their tokenizer has the tokens "
        "for it. Only such as were trained to, like Codestral's, make sense of them, and their files do not say so.",
    )
    image_cache_tokens: Annotated[int, Field(ge=0)] = Field(
        default=16384,
        description="Tokens of images whose encodings are kept: a picture that comes again is not encoded again.",
    )
    prefix_cache: bool = Field(
        default=True,
        description="Keep what was computed of prompts and answers in the KV cache until its room is needed, and use "
        "it for requests of the same workspace that begin alike.",
    )
    max_queue: Annotated[int, Field(ge=0)] = Field(
        default=256, description="Most requests that wait for a place; further ones are answered 503."
    )
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        default=32 * 1024 * 1024, description="Largest request body; larger ones are answered 413."
    )
    fetch_urls: bool = Field(
        default=True,
        description="Fetch images and documents that requests give by http(s) URL; `data:` URIs are always read. Only "
        "public addresses are connected to, at ports 80 and 443.",
    )
    fetch_allowed_hosts: Annotated[
        tuple[str, ...], BeforeValidator(_list_from_text), AfterValidator(_allowed_hosts)
    ] = Field(
        default=(),
        description="Hosts and networks that may be fetched from although they are not public, such as "
        "`store.internal`, `store.internal:9000` or `10.1.0.0/16`.",
    )
    fetch_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=20.0, description="Seconds that the fetch of one file may take, redirects included."
    )
    max_images: Annotated[int, Field(ge=0)] = Field(
        default=8, description="Most images in one request; pages of documents are counted apart."
    )
    max_image_bytes: Annotated[int, Field(ge=1)] = Field(
        default=20 * 1024 * 1024, description="Largest file of an image."
    )
    max_document_bytes: Annotated[int, Field(ge=1)] = Field(
        default=50 * 1024 * 1024, description="Largest file of a document."
    )
    max_document_pages: Annotated[int, Field(ge=1)] = Field(default=1000, description="Most pages of a PDF.")
    max_document_images: Annotated[int, Field(ge=0)] = Field(
        default=16, description="Most pages without text, which are read as images, in one request."
    )
    document_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=30.0, description="Seconds that reading one PDF may take."
    )
    strict_lifecycle: bool = Field(
        default=False,
        description="Refuse retired model names instead of answering them through their replacement.",
    )
    allow_user_after_tool: bool = Field(
        default=False,
        description="Accept a user message right after a tool message, which the hosted API refuses.",
    )
    requests_per_minute: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Requests a workspace may make of one model in any 60 s, unless its own limits say otherwise; no "
        "limit if unset.",
    )
    tokens_per_minute: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens a workspace may use of one model in any 60 s, likewise."
    )
    tokens_per_month: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens a workspace may use of one model in a month of UTC, likewise."
    )
    shutdown_grace_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=30.0, description="Seconds that running requests have to finish after a stop signal."
    )
    engine_start_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=600.0, description="Seconds that the engine process has to load its weights."
    )
    server_timing: bool = Field(
        default=False,
        description="Say in the header `server-timing` how long authentication, limits and books took.",
    )
    stream_padding: bool = Field(
        default=True,
        description="Pad stream events to random lengths (the field `p`), so that their sizes on the network "
        "do not tell the text.",
    )
    keep_alive_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=15.0, description="Seconds of silence on a stream after which a comment line is sent."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lowercase)] = Field(
        default="info", description="Least severe log lines to write: debug, info, warning or error."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Form of log lines; auto is console on a terminal and json elsewhere."
    )
    log_prompts: bool = Field(default=False, description="Let prompts and completions appear in logs.")
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_list_from_text), AfterValidator(_origins)] = (
        Field(
            default=(),
            description="Web origins whose pages may call the API; * for any. Credentials are never allowed.",
        )
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Settings:
        if self.models and "weights" in self.model_fields_set:
            raise ValueError("weights and models are both set; models alone says which weights serve what")
        if self.max_step_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) is below max_num_seqs ({self.max_num_seqs}): "
                "each running sequence needs one token of a step"
            )
        self._check_single_sign_on()
        return self

    def _check_single_sign_on(self) -> None:
        if self.oidc_issuer is None:
            given = [
                name for name in self.model_fields_set if name.startswith("oidc_") and getattr(self, name)
            ]
            if given:
                raise ValueError(f"{min(given)} is set, and oidc_issuer, which it belongs to, is not")
        else:
            for name in ("oidc_client_id", "public_url"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"oidc_issuer is set, and {name}, which single sign-on needs too, is not"
                    )

    def served_models(self) -> Mapping[str, str]:
        """Return the weights spec behind each model id that is served."""
        return self.models or {DEFAULT_MODEL_ID: self.weights}

    def resolve_api_key(self) -> str:
        """Return the configured key, or this machine's own, which is made in `home` on the first call.

        Raises: mezzo.kit.secrets.MachineKeyError, OSError.
        """
        return (
            self.api_key.get_secret_value()
            if self.api_key is not None
            else machine_key(self.home / "api-key")
        )

    def secrets(self) -> list[str]:
        """Return what must never appear in a log. Raises: mezzo.kit.secrets.MachineKeyError, OSError."""
        configured = (getattr(self, name) for name in type(self).model_fields if _is_secret(name))
        texts = [secret.get_secret_value() for secret in configured if secret is not None]
        return [self.resolve_api_key(), *texts]

    def resolve_database_url(self) -> str:
        """Return the configured URL of the database, or that of the SQLite file where none was configured."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return sqlite_url(self.data_folder / "mezzo.db")

    def resolve_secret_key(self) -> str:
        """Return the installation's secret, which is made on the first call if none is configured.

        Raises: mezzo.kit.secrets.MachineKeyError, OSError.
        """
        return (
            self.secret_key.get_secret_value()
            if self.secret_key is not None
            else machine_key(self.data_folder / "secret-key", new_secret)
        )

    @property
    def data_folder(self) -> Path:
        """Folder of what must not be lost. `home` may be a cache, which systems clear when they like."""
        return self.home if "home" in self.model_fields_set else platformdirs.user_data_path("mezzo")


def load_settings(
    options: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: defaults < file < environment < `options` (the command line's).

    options: by setting name; those that are None were not given. config: the file to read, which must exist;
    else the one named by MEZZO_CONFIG, which must exist; else mezzo.toml in the working directory, if there.
    environ: os.environ if None. Raises: SettingsError.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (options or {}).items() if value is not None}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    path = _config_path(config, environ)
    if path is not None:
        values |= (in_file := _read_file(path))
        sources |= {name: f"{name} in {path}" for name in in_file}
    values |= (in_environ := _read_environ(environ))
    sources |= {name: env_name(name) for name in in_environ}
    values |= given
    sources |= {name: "--" + name.replace("_", "-") for name in given}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from None


def env_name(setting: str) -> str:
    """Return the environment variable of a setting."""
    return ENV_PREFIX + setting.upper()


def _config_path(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        path, origin = config, "--config"
    elif CONFIG_VARIABLE in environ:
        path, origin = Path(environ[CONFIG_VARIABLE]), CONFIG_VARIABLE
    else:
        default = Path(CONFIG_FILE)
        return default if default.exists() else None
    if not path.is_file():
        raise SettingsError(f"{origin}: there is no file {str(path)!r}")
    return path


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    for name in table:
        if name not in Settings.model_fields:
            raise SettingsError(f"{name} in {path} is not a setting.{_suggest(name, Settings.model_fields)}")
    # TOML has types, so here "8000" is no number and 1 is no boolean. JSON's strict rules are those of TOML.
    try:
        Settings.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        # Combinations of settings are judged later, when every source has been read.
        if any(item["loc"] for item in error.errors()):
            raise SettingsError(_explain(error, {name: f"{name} in {path}" for name in table})) from None
    return table


def _read_environ(environ: Mapping[str, str]) -> dict[str, str]:
    settings_by_variable = {env_name(name): name for name in Settings.model_fields}
    values = {}
    for variable, text in environ.items():
        if variable == CONFIG_VARIABLE or not variable.startswith(ENV_PREFIX):
            continue
        if variable not in settings_by_variable:
            known = [*settings_by_variable, CONFIG_VARIABLE]
            raise SettingsError(f"{variable} in the environment is not a setting.{_suggest(variable, known)}")
        values[settings_by_variable[variable]] = text
    return values


def _suggest(name: str, known: Iterable[str]) -> str:
    by_folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_folded, n=1)
    return f" Did you mean {by_folded[close[0]]}?" if close else " `docs/settings.md` lists them."


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    items = error.errors(include_url=False, include_context=False)
    # A mistake inside one field first: a combination can only be judged when each value is sound.
    item = next((item for item in items if item["loc"]), items[0])
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name, *inside = item["loc"]
    where = sources.get(str(name), str(name))
    got = "" if _is_secret(str(name)) else f" (got {_short(item['input'])})"
    key = "".join(f"[{part!r}]" for part in inside if part != "[key]") if name == "models" else ""
    return f"{where}{key}: {message[0].lower()}{message[1:]}{got}"


def _is_secret(name: str) -> bool:
    field = Settings.model_fields.get(name)
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
