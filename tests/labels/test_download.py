"""The base model of an archive is fetched once, as safetensors, and used only if it is the right one.

A local server speaks the hub's protocol: HEAD and GET of /OWNER/NAME/resolve/REVISION/FILE, with ETag, X-Repo-Commit,
ranges, and a redirect to where large files lie.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import open_clip.factory
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import load_file, save

from hellods import HelloDataset
from hellods.distill.build import build
from hellods.distill.recipe import Inputs, Recipe
from hellods.errors import LabelError
from hellods.labels.backbones import load_open_clip
from hellods.labels.hub import cached, fetch
from hellods.labels.models import ASSETS, WEIGHTS
from hellods.labels.models import CONFIG as CONFIG_FILE
from hellods.labels.projector import Projector

BASE = "hello-test/tiny"  # a built-in tag, as far as open_clip knows in these tests
ADDRESS = "somebody/hello-test"
BASES = (BASE, f"hf-hub:{ADDRESS}")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 20  # bytes that huggingface_hub writes at once; it is 10 MiB
CONFIG = json.loads((ASSETS / "hello-tiny" / "open_clip_config.json").read_text())


class Hub:
    """A server of one repository, and what was asked of it: (method, path, range)."""

    def __init__(self) -> None:
        folder = ASSETS / "hello-tiny"
        self.files = {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG_FILE)}
        self.asked: list[tuple[str, str, str | None]] = []
        self.cut = 0  # so many downloads break off in the middle
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                hub.asked.append((self.command, self.path, self.headers["Range"]))
                found = re.fullmatch(rf"(?:/{ADDRESS}/resolve/(?:main|{COMMIT})|/large)/([^/]+)", self.path)
                content = hub.files.get(found[1]) if found else None
                if content is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                digest = hashlib.sha256(content).hexdigest()
                if not self.path.startswith("/large"):
                    self.send_response(302)
                    # Another host, as large files have: huggingface_hub takes what it must know from this answer.
                    place = hub.url.replace("127.0.0.1", "localhost")
                    self.send_header("Location", f"{place}/large/{found[1] if found else ''}")
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("X-Linked-ETag", f'"{digest}"')
                    self.send_header("X-Linked-Size", str(len(content)))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
                self.send_response(206 if start else 200)
                self.send_header("ETag", f'"{digest}"')
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if not body:
                    return
                if hub.cut:
                    hub.cut -= 1
                    self.wfile.write(content[start : (start + len(content)) // 2])
                    self.close_connection = True
                else:
                    self.wfile.write(content[start:])

        return Handler

    @property
    def downloads(self) -> list[str | None]:
        """The ranges of the requests for content."""
        return [part for method, path, part in self.asked if method == "GET" and path.startswith("/large")]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with hello-tiny's weights under a tag of its own, and an empty cache."""
    hub = Hub()
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "hello-test", CONFIG["model_cfg"])
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "hello-test", {"tiny": facts()})
    # What HF_ENDPOINT and HF_HOME set when huggingface_hub is imported.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    thread = Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def facts() -> dict[str, object]:
    return CONFIG["preprocess_cfg"] | {"hf_hub": f"{ADDRESS}/"}


def test_first_use_downloads_safetensors_and_gives_the_base(hub: Hub) -> None:
    backbone, own = load_open_clip(BASE), load_open_clip("hello-tiny")
    assert (backbone.name, backbone.sha256, backbone.preprocess) == (BASE, own.sha256, own.preprocess)
    assert hub.downloads == [None]
    assert {path.rpartition("/")[2] for _, path, _ in hub.asked if "resolve" in path} == {WEIGHTS}


def test_first_use_of_a_strangers_model_downloads_its_config_and_safetensors(hub: Hub) -> None:
    backbone, own = load_open_clip(f"hf-hub:{ADDRESS}"), load_open_clip("hello-tiny")
    assert (backbone.name, backbone.sha256) == ("given:hello-test", own.sha256)
    assert backbone.embed is not None
    assert own.embed is not None
    assert torch.equal(backbone.embed(["a cat"]), own.embed(["a cat"]))
    assert {path.rpartition("/")[2] for _, path, _ in hub.asked if "resolve" in path} == {CONFIG_FILE, WEIGHTS}


def test_config_and_weights_of_a_stranger_are_of_one_revision(hub: Hub) -> None:
    cached(ADDRESS, CONFIG_FILE)
    hub.asked.clear()
    load_open_clip(f"hf-hub:{ADDRESS}")
    assert {path for _, path, _ in hub.asked if "resolve" in path} == {f"/{ADDRESS}/resolve/{COMMIT}/{WEIGHTS}"}


def test_first_use_of_a_strangers_image_tower_downloads_its_config_and_safetensors(hub: Hub) -> None:
    hub.files[CONFIG_FILE] = json.dumps({"model_cfg": {**CONFIG["model_cfg"], "text_cfg": None}}).encode()
    backbone, own = (load_open_clip(base, "prototypes") for base in (f"hf-hub:{ADDRESS}", "hello-tiny"))
    assert (backbone.name, backbone.sha256) == ("given:hello-test", own.sha256)
    assert {path.rpartition("/")[2] for _, path, _ in hub.asked if "resolve" in path} == {CONFIG_FILE, WEIGHTS}


def test_built_in_tag_gives_the_image_tower_alone(hub: Hub) -> None:
    backbone, own = (load_open_clip(base, "prototypes") for base in (BASE, "hello-tiny"))
    assert (backbone.sha256, backbone.scale, backbone.preprocess) == (own.sha256, own.scale, own.preprocess)


@pytest.mark.parametrize("base", BASES)
def test_cached_base_is_used_without_asking(hub: Hub, base: str) -> None:
    read(base)
    hub.asked.clear()
    read(base)
    assert hub.asked == []


def test_download_that_breaks_off_goes_on_where_it_was(hub: Hub) -> None:
    hub.cut = 1
    assert load_open_clip(BASE).sha256 == load_open_clip("hello-tiny").sha256
    assert hub.downloads == [None, f"bytes={CHUNK * (len(hub.files[WEIGHTS]) // 2 // CHUNK)}-"]


def test_without_a_network_it_fails_soon_and_says_what_to_bring(hub: Hub) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    start = time.monotonic()
    with pytest.raises(LabelError, match=r"hello-test/tiny.*Without a network, bring.*`base='local-dir:FOLDER'`"):
        load_open_clip(BASE)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("base", BASES)
def test_without_a_network_a_cached_base_is_used(hub: Hub, base: str) -> None:
    read(base)
    hub.server.shutdown()
    hub.server.server_close()
    read(base)


def read(base: str) -> None:
    """Load a base model, and have it read a text."""
    embed = load_open_clip(base).embed
    assert embed is not None
    embed(["a cat"])


def test_altered_weights_are_refused_and_named_and_downloaded_again_once_deleted(hub: Hub) -> None:
    projector = Projector.create(BASE, ["a", "b"], template="{}", ranks=(1, 1), seed=0)
    weights = load_file(ASSETS / "hello-tiny" / WEIGHTS)
    weights["visual.conv1.weight"][0, 0, 0, 0] += 0.01
    fetch(f"{ADDRESS}/").resolve().write_bytes(save(weights))
    with pytest.raises(LabelError) as error:
        Projector.restore(projector.config, ["a", "b"], projector.state())
    message = re.fullmatch(
        r"base model '(.*)' has SHA-256 .*, but the archive .* wrong\. If (/.*) was altered, delete it, .*",
        str(error.value),
    )
    assert message
    assert message[1] == BASE
    Path(message[2]).unlink()
    Projector.restore(projector.config, ["a", "b"], projector.state())


def test_archive_names_its_base_which_the_first_label_downloads(hub: Hub, few_digits: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.hello", tmp_path / "other.hello"
    recipe = Recipe(images_per_class=1, teacher_epochs=1, fit_views=64, initializer="real")
    build(Inputs(data=str(few_digits), base=BASE, allow_weak_teacher=True), recipe, out=path)
    shutil.copy(path, other)  # two files of one content have each their label maker
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    hub.asked.clear()
    dataset = HelloDataset(path)
    HelloDataset(path, labels="hard").batch([0])
    assert hub.asked == []
    _, labels = dataset.batch([0])
    assert (tuple(labels.shape), hub.downloads) == ((1, 10), [None])
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    hub.files.clear()
    with pytest.raises(LabelError, match=rf"{other}: base model 'hello-test/tiny' .*Without a network"):
        HelloDataset(other).batch([0])


def test_hub_that_shall_not_be_asked_is_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LabelError, match=r"hello-test/tiny.*Without a network, bring"):
        load_open_clip(BASE)
    assert hub.asked == []


@pytest.mark.parametrize("base", BASES)
def test_a_file_that_was_cut_short_in_the_cache_is_named_and_downloaded_again_once_deleted(hub: Hub, base: str) -> None:
    whole = load_open_clip(base).sha256
    cut_short(fetch(f"{ADDRESS}/"))
    with pytest.raises(LabelError) as error:
        load_open_clip(base)
    message = re.fullmatch(
        r"base model '(.*)' cannot be loaded: .*\. (/.*) is damaged: delete it, .*", str(error.value)
    )
    assert message
    assert message[1] == base
    assert "Without a network" not in message[0]
    Path(message[2]).unlink()
    assert load_open_clip(base).sha256 == whole


def test_a_file_of_the_users_own_that_was_cut_short_is_named(small_base: Path, tmp_path: Path) -> None:
    own = shutil.copytree(small_base, tmp_path / "own")
    cut_short(own / WEIGHTS)
    with pytest.raises(LabelError, match=rf"cannot be loaded: .*\. {own / WEIGHTS} is damaged: bring it again$"):
        load_open_clip(f"local-dir:{own}")


def cut_short(file: Path) -> None:
    file.resolve().write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("base", BASES)
def test_a_pickle_is_never_asked_for(hub: Hub, base: str) -> None:
    hub.files = {CONFIG_FILE: hub.files[CONFIG_FILE], "open_clip_pytorch_model.bin": b"cos\nsystem\n"}
    with pytest.raises(LabelError, match=rf"{base}.*cannot be loaded"):
        load_open_clip(base)
    assert not any(".bin" in path for _, path, _ in hub.asked)


SCRIPT = """
import json, sys
import open_clip.factory, open_clip.pretrained
open_clip.factory._MODEL_CONFIGS["hello-test"], facts = json.loads(sys.argv[1])
open_clip.pretrained._PRETRAINED["hello-test"] = {"tiny": facts}
from hellods.labels.backbones import load_open_clip
print(load_open_clip("hello-test/tiny").sha256)
"""


def test_the_usual_environment_variables_name_hub_and_cache(hub: Hub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps([CONFIG["model_cfg"], facts()])]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == load_open_clip("hello-tiny").sha256
    assert list((tmp_path / "home").rglob(WEIGHTS))
