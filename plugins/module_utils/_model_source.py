# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the description of a model comes from: what the user gave, the source itself, the copy in its volume, the built-in table; the answer says which.

    found = find(model, Readers.of(aws={"region": "eu-central-1"}, base=Path.cwd()))
    found.description, found.origin, found.rows

Nothing here raises for what it finds: a source that cannot be read is a row, and the next place is asked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import _checkpoint, _data
from ._checkpoint import Place, Unreadable
from ._checkpoint_places import Hub, LocalFolder, S3Folder, s3_client
from ._fit_model import ModelDescription, ModelError
from ._fit_weights import of_prediction
from ._problems import errors, problem
from ._schema import Rows

SOURCE = re.compile(r"(?P<scheme>s3|hf|pvc)://(?P<place>[^/@]+)(?:/(?P<rest>[^@]*))?(?:@(?P<revision>.+))?")
HUB_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# Words of a folder's name that do not change a model's shapes.
TUNING = ("instruct", "chat", "it", "hf", "base")


@dataclass(frozen=True)
class Found:
    """What was found out about one model. `origin` is one phrase for people, `rows` problem rows; description None: nothing is known."""

    description: ModelDescription | None
    origin: str
    rows: Rows


@dataclass(frozen=True)
class Readers:
    """How to reach each kind of place; None: it is not asked. All of them raise Unreadable.

    s3: (bucket, prefix) -> folder. hub: (repository, revision or None) -> folder. local: path -> folder.
    volume: model -> {config, tensor_bytes, where} of a finished copy, or None.
    """

    s3: Callable[[str, str], Place] | None = None
    hub: Callable[[str, str | None], Place] | None = None
    local: Callable[[str], Place] | None = None
    volume: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None

    @classmethod
    def none(cls) -> Readers:
        """No input or output at all: only a config written in the item, and the built-in table."""
        return cls()

    @classmethod
    def of(cls, aws: Mapping[str, Any], base: Path, volume: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None) -> Readers:
        """The real ones. `aws` are amazon.aws' options, relative paths start at `base`. Clients are made when they are first needed, once."""
        client = functools.cache(lambda: s3_client(aws))
        return cls(
            s3=lambda bucket, prefix: S3Folder(client(), bucket, prefix),
            hub=Hub().folder,
            local=lambda path: LocalFolder(base / Path(path).expanduser()),
            volume=volume,
        )


def find(model: Mapping[str, Any], readers: Readers) -> Found:
    """Describe one item of llm_models, merged with the defaults.

    Asked in this order, until one answers: `config` of the item, `source`, the copy in the volume, the built-in table. Rows are errors only where a
    server could not start either: a folder without config.json, a bucket or revision that does not exist, a `config` that cannot be used.
    """
    rows: Rows = []
    for look in (_given, _source, _volume, _table):
        for checkpoint, origin in _guarded(look, model, readers, rows):
            description = _describe(checkpoint, origin, model, rows)
            if description:
                return Found(description, origin, rows)
        if errors(rows):
            return Found(None, "", rows)
    subject = _subject(model)
    fix = "set config to the model's config.json, to a folder with it, or to the name of the model on the Hugging Face hub that it comes from"
    rows.append(problem("model_unknown", subject, f"nothing about {model.get('source')}", "the model's config.json", fix, "warning"))
    return Found(None, "", rows)


Answer = Iterator[tuple[_checkpoint.Checkpoint | ModelDescription, str]]


def _guarded(look: Callable[..., Answer], model: Mapping[str, Any], readers: Readers, rows: Rows) -> Answer:
    """The answers of one place; what it cannot read becomes a row."""
    try:
        yield from look(model, readers, rows)
    except Unreadable as error:
        # Working without a network is usual; a name that the table knows loses nothing by it.
        calm = error.check == "hub_unreachable" and _hub_name(model) in _data.load("model_configs")["models"]
        rows.append(problem(error.check, _subject(model), error.found, error.needed, error.fix, "info" if calm else error.severity))


def _describe(checkpoint: _checkpoint.Checkpoint | ModelDescription, origin: str, model: Mapping[str, Any], rows: Rows) -> ModelDescription | None:
    if isinstance(checkpoint, ModelDescription):
        return replace(checkpoint, name=_subject(model))
    given = model.get("config") is not None
    try:
        found = ModelDescription.from_config(
            checkpoint.config, name=_subject(model), checkpoint_bytes=checkpoint.checkpoint_bytes, tensors=checkpoint.tensors, source=origin
        )
        # A quantised copy may lack the layers of multi-token prediction that its config.json still states: then they are no part of its bytes.
        lacks = checkpoint.names and not any(of_prediction(tensor, found.layers) for tensor in checkpoint.names)
        return replace(found, mtp_layers=0) if lacks else found
    except (ModelError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        found = str(error).removeprefix(f"{_subject(model)}: ")
        if not isinstance(error, ModelError):
            found = f"{origin} with fields that contradict each other ({type(error).__name__}: {error})"
        fix = "give the model's complete config.json"
        rows.append(problem("config_incomplete", _subject(model), found, "a config.json as published", fix, "error" if given else "warning"))
        return None


def _given(model: Mapping[str, Any], readers: Readers, rows: Rows) -> Answer:
    """`config` of the item: content, path, or the name of a model on the hub."""
    given = model.get("config")
    if given is None:
        return
    if isinstance(given, Mapping):
        config = dict(given)
        size = config.pop("checkpoint_bytes", None)
        try:
            size = int(size) if size is not None else None
        except (TypeError, ValueError):
            raise Unreadable("config", f"config.checkpoint_bytes = {size!r}", "a whole number of bytes", "correct or remove it", "error") from None
        yield _checkpoint.Checkpoint(config, size, None, ()), "config of the model item"
        return
    text = str(given)
    match = HUB_NAME.fullmatch(text)
    if match and not text.endswith(".json") and not text.startswith("."):
        name = match["repository"]
        if readers.hub:
            try:
                yield _read(readers.hub(name, match["revision"]), to_serve=False)
            except Unreadable as error:
                if error.severity == "error" or name not in _data.load("model_configs")["models"]:
                    raise
                rows.append(problem(error.check, _subject(model), error.found, error.needed, error.fix, "info"))
        yield from _table_entry(name)
        found = f"config {text}: no such model in the built-in table" + ("" if readers.hub else ", and the hub was not asked")
        raise Unreadable("config", found, "a model that can be found", "write the config.json itself, or the path of a folder with it", "error")
    if not readers.local:
        raise Unreadable("config", f"config {text}, a path that is not read here", "its content", "write the content of config.json", "warning")
    path = Path(text)
    if path.name.endswith(".json") and path.name != _checkpoint.CONFIG:
        folder = readers.local(str(path.parent))
        yield _checkpoint.read_config(folder, path.name), f"{path.name} in {folder.where}"
    else:
        yield _read(readers.local(str(path.parent) if path.name == _checkpoint.CONFIG else text), to_serve=False)


def _source(model: Mapping[str, Any], readers: Readers, _rows: Rows) -> Answer:
    """The source itself, where it can be read from here."""
    match = SOURCE.fullmatch(str(model.get("source") or ""))
    if not match:
        return
    rest = (match["rest"] or "").strip("/")
    if match["scheme"] == "s3" and readers.s3:
        yield _read(readers.s3(match["place"], rest), to_serve=True)
    elif match["scheme"] == "hf" and readers.hub:
        yield _read(readers.hub(f"{match['place']}/{rest}", match["revision"]), to_serve=True)


def _volume(model: Mapping[str, Any], readers: Readers, _rows: Rows) -> Answer:
    """What the Job said that copied the weights."""
    if (model.get("weights") or {}).get("mode") != "volume" or not readers.volume:
        return
    noted = readers.volume(model)
    if noted:
        yield _checkpoint.Checkpoint(dict(noted["config"]), noted.get("tensor_bytes"), None, ()), f"config.json of {noted['where']}"


def _table(model: Mapping[str, Any], _readers: Readers, rows: Rows) -> Answer:
    """The built-in table: by the hub's name, else by the name of the source's last folder when that means exactly one entry."""
    name = _hub_name(model)
    if name in _data.load("model_configs")["models"]:
        yield from _table_entry(name)
        return
    source = SOURCE.fullmatch(str(model.get("source") or ""))
    parts = [part for part in (source["rest"] or "").split("/") if part] if source else []
    meant = _meant(parts[-1]) if parts else None
    if meant:
        for description, origin in _table_entry(meant):
            fix = f"nothing if it is {meant} or a tuned version of it with the same shapes; else set config"
            rows.append(
                problem("model_taken_for", _subject(model), f"only the name {parts[-1]} of {model['source']}", "the model's own config.json", fix, "info")
            )
            yield description, f"{origin}, for which {model['source']} is taken by its name"


def _table_entry(name: str) -> Answer:
    description = ModelDescription.from_table(name)
    if description:
        yield description, f"entry {name} of the built-in table of {_data.load('model_configs')['as_of']}"


def _read(place: Place, to_serve: bool) -> tuple[_checkpoint.Checkpoint, str]:
    checkpoint = _checkpoint.read(place, to_serve)
    return checkpoint, f"{' and '.join(checkpoint.files)} in {place.where}"


def _meant(folder: str) -> str | None:
    """The one entry of the table that a folder's name means: the same letters and digits, else without "Meta-", else without words of tuning."""
    entries = _data.load("model_configs")["models"]
    for forms in (_letters, lambda name: _letters(name).removeprefix("meta"), lambda name: _letters(_untuned(name)).removeprefix("meta")):
        matches = [entry for entry in entries if forms(entry.split("/")[-1]) == forms(folder)]
        if matches:
            return matches[0] if len(matches) == 1 else None
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _untuned(name: str) -> str:
    return "-".join(word for word in re.split(r"[-_]", name.lower()) if word not in TUNING)


def _hub_name(model: Mapping[str, Any]) -> str:
    source = SOURCE.fullmatch(str(model.get("source") or ""))
    return f"{source['place']}/{(source['rest'] or '').strip('/')}" if source and source["scheme"] == "hf" else ""


def _subject(model: Mapping[str, Any]) -> str:
    return str(model.get("name") or model.get("source") or "model")
