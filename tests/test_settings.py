"""Settings: where they come from, which source wins, and what a mistake is answered."""

from __future__ import annotations

import json
import os
import runpy
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mezzo.settings import DEFAULT_MODEL_ID, Settings, SettingsError, load_settings

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_an_empty_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("MEZZO_"):
            monkeypatch.delenv(variable)


def error_of(options: dict[str, object] | None = None, *, file: str | None = None, **environ: str) -> str:
    if file is not None:
        Path("mezzo.toml").write_text(file, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(options, environ=environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestSources:
    def test_defaults_serve_nano_on_loopback(self) -> None:
        settings = load_settings(environ={})
        assert (settings.host, settings.port, settings.api_key) == ("127.0.0.1", 8000, None)
        assert settings.served_models() == {DEFAULT_MODEL_ID: "nano"}

    def test_later_sources_win_over_earlier_ones(self) -> None:
        Path("mezzo.toml").write_text("port = 1\nmax_queue = 1\nmax_num_seqs = 1\n")
        settings = load_settings(
            {"port": 3, "threads": None}, environ={"MEZZO_PORT": "2", "MEZZO_MAX_QUEUE": "2"}
        )
        assert (settings.port, settings.max_queue, settings.max_num_seqs) == (3, 2, 1)

    def test_the_environment_of_the_process_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEZZO_PORT", "81")
        assert load_settings().port == 81

    def test_settings_made_in_code_read_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEZZO_PORT", "81")
        Path("mezzo.toml").write_text("max_queue = 1\n")
        assert (Settings().port, Settings().max_queue) == (8000, 256)

    def test_the_variable_names_another_file_and_the_option_wins_over_it(self, tmp_path: Path) -> None:
        (tmp_path / "mezzo.toml").write_text("port = 1\n")
        (tmp_path / "a.toml").write_text("port = 2\n")
        (tmp_path / "b.toml").write_text("port = 3\n")
        assert load_settings(environ={}).port == 1
        assert load_settings(environ={"MEZZO_CONFIG": "a.toml"}).port == 2
        assert load_settings(config=Path("b.toml"), environ={"MEZZO_CONFIG": "a.toml"}).port == 3

    def test_a_named_file_must_exist(self) -> None:
        assert error_of(MEZZO_CONFIG="nowhere.toml") == "MEZZO_CONFIG: there is no file 'nowhere.toml'"
        with pytest.raises(SettingsError, match=r"^--config: there is no file"):
            load_settings(config=Path("nowhere.toml"), environ={})


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("port", "0", 0),
            ("stream_padding", "false", False),
            ("log_prompts", "1", True),
            ("threads", "4", 4),
            ("shutdown_grace_s", "2.5", 2.5),
            ("device", "cuda:1", "cuda:1"),
            ("log_level", "DEBUG", "debug"),
            ("models", '{"a": "nano", "b": "hf:x/y"}', {"a": "nano", "b": "hf:x/y"}),
            (
                "cors_origins",
                "https://a.example, http://b.example:81",
                ("https://a.example", "http://b.example:81"),
            ),
        ],
    )
    def test_the_environment_holds_text_that_is_read_as_the_settings_type(
        self, name: str, text: str, value: Any
    ) -> None:
        assert getattr(load_settings(environ={"MEZZO_" + name.upper(): text}), name) == value

    def test_the_file_holds_toml_types(self, tmp_path: Path) -> None:
        Path("mezzo.toml").write_text(
            'home = "somewhere"\nshutdown_grace_s = 3\nlog_prompts = true\ncors_origins = ["*"]\n'
            '[models]\n"mistral-medium-2505" = "nano"\n'
        )
        settings = load_settings(environ={})
        assert settings.home == tmp_path / "somewhere"
        assert settings.shutdown_grace_s == 3
        assert settings.log_prompts is True
        assert settings.cors_origins == ("*",)
        assert settings.served_models() == {"mistral-medium-2505": "nano"}

    def test_the_home_folder_is_expanded(self) -> None:
        assert load_settings(environ={"MEZZO_HOME": "~/models"}).home == Path.home() / "models"

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Settings().port = 1  # type: ignore[misc]

    def test_the_key_does_not_show_in_the_settings(self) -> None:
        assert "swordfish" not in repr(Settings(api_key="swordfish"))  # type: ignore[arg-type]


class TestSignIn:
    def test_everything_that_single_sign_on_needs(self) -> None:
        settings = load_settings(
            environ={
                "MEZZO_PUBLIC_URL": "https://Mezzo.example.org",
                "MEZZO_OIDC_ISSUER": "https://login.example.org/realms/main",
                "MEZZO_OIDC_CLIENT_ID": "mezzo",
                "MEZZO_OIDC_CLIENT_SECRET": "swordfish",
                "MEZZO_OIDC_ALLOWED_DOMAINS": "Example.org, example.com",
            }
        )
        assert settings.public_url == "https://mezzo.example.org"
        assert settings.oidc_allowed_domains == ("example.org", "example.com")
        assert "swordfish" not in repr(settings)

    @pytest.mark.parametrize(
        ("environ", "message"),
        [
            ({"MEZZO_PUBLIC_URL": "mezzo.example.org"}, "MEZZO_PUBLIC_URL: write it as a browser does"),
            ({"MEZZO_PUBLIC_URL": "https://a.example/b"}, "MEZZO_PUBLIC_URL: write it as a browser does"),
            (
                {"MEZZO_OIDC_ISSUER": "http://login.example.org"},
                "MEZZO_OIDC_ISSUER: an issuer's URL begins with",
            ),
            (
                {"MEZZO_OIDC_ISSUER": "https://a.example/?b"},
                "MEZZO_OIDC_ISSUER: write it as the provider does",
            ),
            ({"MEZZO_OIDC_ALLOWED_DOMAINS": "*.org"}, "MEZZO_OIDC_ALLOWED_DOMAINS: '*.org' is not a domain"),
            (
                {"MEZZO_TRUSTED_PROXIES": "10.0.0.1/8"},
                "MEZZO_TRUSTED_PROXIES: '10.0.0.1/8' is no address or network",
            ),
            ({"MEZZO_SESSION_HOURS": "0"}, "MEZZO_SESSION_HOURS: input should be greater than or equal to 1"),
            (
                {"MEZZO_OIDC_CLIENT_ID": "mezzo"},
                "oidc_client_id is set, and oidc_issuer, which it belongs to, is not",
            ),
            (
                {"MEZZO_OIDC_ISSUER": "https://a.example", "MEZZO_OIDC_CLIENT_ID": "mezzo"},
                "oidc_issuer is set, and public_url, which single sign-on needs too, is not",
            ),
        ],
    )
    def test_mistakes(self, environ: dict[str, str], message: str) -> None:
        assert error_of(**environ).startswith(message)

    def test_a_provider_on_this_machine_may_do_without_tls(self) -> None:
        for host in ("localhost", "127.0.0.1", "[::1]"):
            url = f"http://{host}:8080/realm"
            settings = Settings(oidc_issuer=url, oidc_client_id="x", public_url="http://localhost")
            assert settings.oidc_issuer == url


class TestMistakes:
    @pytest.mark.parametrize("name", ["API_KEY", "SECRET_KEY", "DATABASE_URL", "OIDC_CLIENT_SECRET"])
    def test_secrets_are_not_repeated(self, name: str) -> None:
        assert "sword fish" not in error_of(**{f"MEZZO_{name}": "sword fish"})

    @pytest.mark.parametrize(
        ("environ", "message"),
        [
            ({"MEZZO_PRT": "1"}, "MEZZO_PRT in the environment is not a setting. Did you mean MEZZO_PORT?"),
            ({"MEZZO_port": "1"}, "MEZZO_port in the environment is not a setting. Did you mean MEZZO_PORT?"),
            ({"MEZZO_XYZZY": "1"}, "MEZZO_XYZZY in the environment is not a setting."),
            ({"MEZZO_PORT": "http"}, "MEZZO_PORT: input should be a valid integer"),
            (
                {"MEZZO_PORT": "65536"},
                "MEZZO_PORT: input should be less than or equal to 65535 (got '65536')",
            ),
            ({"MEZZO_THREADS": ""}, "MEZZO_THREADS: input should be a valid integer"),
            ({"MEZZO_THREADS": "0"}, "MEZZO_THREADS: input should be greater than or equal to 1"),
            ({"MEZZO_KEEP_ALIVE_S": "nan"}, "MEZZO_KEEP_ALIVE_S: "),
            ({"MEZZO_SHUTDOWN_GRACE_S": "inf"}, "MEZZO_SHUTDOWN_GRACE_S: "),
            ({"MEZZO_DEVICE": "gpu"}, "MEZZO_DEVICE: a device is auto, cpu, cuda, cuda:N or mps (got 'gpu')"),
            ({"MEZZO_DTYPE": "int3"}, "MEZZO_DTYPE: input should be 'auto', 'float32', "),
            ({"MEZZO_LOG_PROMPTS": "maybe"}, "MEZZO_LOG_PROMPTS: input should be a valid boolean"),
            ({"MEZZO_MODELS": "nano"}, "MEZZO_MODELS: write it as JSON"),
            ({"MEZZO_MODELS": '{"a": 1}'}, "MEZZO_MODELS['a']: input should be a valid string"),
            ({"MEZZO_CORS_ORIGINS": "a.example"}, "MEZZO_CORS_ORIGINS: 'a.example' is not an origin"),
            ({"MEZZO_CORS_ORIGINS": "https://a/b"}, "MEZZO_CORS_ORIGINS: 'https://a/b' is not an origin"),
            ({"MEZZO_API_KEY": ""}, "MEZZO_API_KEY: a key is one or more printable ASCII characters"),
        ],
    )
    def test_in_the_environment_are_named_with_their_variable(
        self, environ: dict[str, str], message: str
    ) -> None:
        assert error_of(**environ).startswith(message)

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("prot = 1", "prot in mezzo.toml is not a setting. Did you mean port?"),
            ('port = "8000"', "port in mezzo.toml: input should be a valid integer (got '8000')"),
            ("log_prompts = 1", "log_prompts in mezzo.toml: input should be a valid boolean (got 1)"),
            ("[models]\na = 1", "models in mezzo.toml['a']: input should be a valid string (got 1)"),
            ("port = ", "mezzo.toml is not valid TOML: "),
            ("[server]\nport = 1", "server in mezzo.toml is not a setting."),
        ],
    )
    def test_in_the_file_are_named_with_the_file(self, file: str, message: str) -> None:
        assert error_of(file=file).startswith(message)

    def test_on_the_command_line_are_named_with_the_option(self) -> None:
        assert error_of({"max_num_seqs": 0}).startswith("--max-num-seqs: input should be greater than")

    def test_a_bad_value_in_the_file_counts_also_when_the_environment_overrides_it(self) -> None:
        assert "port in mezzo.toml" in error_of(file='port = "x"', MEZZO_PORT="1")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("api_key", "sword fish"),
            ("upstream_api_key", "sword fish"),
            ("secret_key", "swordfish"),
            ("database_url", "mysql://mezzo:swordfish@db/mezzo"),
            ("database_url", "postgresql://mezzo:swordfish]@[db/mezzo"),
            ("redis_url", "http://:swordfish@redis"),
            ("redis_url", "redis://:swordfish/@redis"),
            ("redis_url", "redis://:swordfish]@[redis"),
            ("redis_url", "redis://user:123?swordfish@redis"),
        ],
    )
    def test_a_secret_is_not_repeated(self, name: str, value: str) -> None:
        assert "fish" not in error_of(**{f"MEZZO_{name.upper()}": value})
        assert "fish" not in error_of(file=f"{name} = {json.dumps(value)}")

    def test_weights_and_models_exclude_each_other(self) -> None:
        assert error_of({"weights": "nano"}, file='[models]\na = "nano"').startswith(
            "weights and models are both"
        )

    def test_a_step_has_room_for_every_running_sequence(self) -> None:
        assert error_of(MEZZO_MAX_NUM_SEQS="1000").startswith(
            "max_step_tokens (512) is below max_num_seqs (1000)"
        )
        # Judged on what the sources say together, not on the file alone.
        Path("mezzo.toml").write_text("max_num_seqs = 1000\n")
        assert load_settings(environ={"MEZZO_MAX_STEP_TOKENS": "1000"}).max_num_seqs == 1000


class TestApiKey:
    def test_the_configured_key_is_used_and_none_is_made(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path / "home", api_key="swordfish")  # type: ignore[arg-type]
        assert settings.resolve_api_key() == "swordfish"
        assert not settings.home.exists()

    def test_every_key_is_a_secret(self, tmp_path: Path) -> None:
        given = {"api_key": "one", "upstream_api_key": "two", "redis_url": "redis://:three@redis"}
        settings = Settings(home=tmp_path, **given)  # type: ignore[arg-type]
        assert {*given.values()} <= {*settings.secrets()}
        assert "two" not in repr(settings)
        assert Settings(home=tmp_path).secrets() == [Settings(home=tmp_path).resolve_api_key()]

    def test_otherwise_one_is_made_for_this_machine_and_kept(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path / "home")
        key = settings.resolve_api_key()
        assert key.startswith("mz-")
        assert Settings(home=tmp_path / "home").resolve_api_key() == key
        assert stat.S_IMODE((settings.home / "api-key").stat().st_mode) == 0o600


class TestDocumentation:
    def test_every_setting_says_what_it_means(self) -> None:
        undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
        assert undescribed == []

    def test_the_page_is_what_the_script_writes(self) -> None:
        render = runpy.run_path(str(REPOSITORY / "scripts" / "settings_doc.py"))["render"]
        page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
        assert page == render(), "run: python scripts/settings_doc.py"
