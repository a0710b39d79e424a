"""A run as one YAML file: typed settings with defaults, checked before anything starts.

Every component's settings are a dataclass beside the component; a recipe only composes them. A recipe file
lists what differs from the defaults, `key=value` overrides change single settings, and what is unknown,
misspelt or of the wrong type is refused with its path and the nearest right name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from tubelet.data.clips import AnyClip, DenseClip, Views
from tubelet.data.texts import read_text
from tubelet.data.transforms import Augment
from tubelet.errors import UserError, did_you_mean, require_at_least
from tubelet.masking import AnyMasking, RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import AnyHeadConfig, LinearHeadConfig
from tubelet.models.target import PixelTarget
from tubelet.tasks.mixing import Mixing
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips come from.

    Attributes:
        root: folder of the data set, with its lists (train.csv, …) and classes.txt.
        train: list to train on.
        clip: which frames of a video make a clip.
        augment: random changes to the training clips.
        repeats: clips of each video, at times of their own, from one decode; optim.batch_size counts videos.
        crops: of each of those clips, the same frames augmented anew (repeated augmentation).
        balanced: draw every class equally often, videos of rare ones more than once an epoch and those that
            show no class never; needs labels.
        workers: decoding processes beside each training process; null is one for each core, or half as many
            where the network computes on the CPU too.
        max_failures: share of the videos that may fail to be read before the run stops, in [0, 1].
    """

    root: Path
    train: str = "train"
    clip: AnyClip = field(default_factory=DenseClip)
    augment: Augment = field(default_factory=Augment)
    repeats: int = 1
    crops: int = 1
    balanced: bool = False
    workers: int | None = None
    max_failures: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(1, repeats=self.repeats, crops=self.crops)
        require_at_least(0, workers=self.workers)
        if not 0 <= self.max_failures <= 1:
            raise UserError(f"max_failures must lie in [0, 1], found {self.max_failures}")


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig(DataConfig):
    """Where the clips come from, and those to validate on.

    Attributes:
        val: list to validate on after each epoch; null does not validate.
    """

    val: str | None = "val"


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When to save and to log.

    Attributes:
        every_epochs: epochs between checkpoints, which are also the epochs between validations.
        every_seconds: most seconds between checkpoints within an epoch.
        log_steps: optimizer steps between lines of the log.
    """

    every_epochs: int = 1
    every_seconds: float = 300.0
    log_steps: int = 10

    def __post_init__(self) -> None:
        require_at_least(1, every_epochs=self.every_epochs, log_steps=self.log_steps)
        require_at_least(0, every_seconds=self.every_seconds)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Pre-training a masked autoencoder.

    Attributes:
        data: the clips.
        model: the autoencoder.
        masking: which tokens are hidden.
        optim: the optimization.
        init: model to start from, or null to start from random weights.
        seed: of everything random, in [0, 2**63).
        save: checkpoints and logs.
        runtime: device, precision and processes.
    """

    task: Literal["pretrain"] = "pretrain"
    data: DataConfig
    optim: OptimConfig
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    masking: AnyMasking = field(default_factory=TubeMasking)
    init: str | None = None
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if self.optim.layer_decay != 1:
            raise UserError(
                f"optim.layer_decay must be 1 in pre-training, found {self.optim.layer_decay}: it is for "
                "fine-tuning, where the layers are learned already"
            )


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """MAR's second loss: painting the tokens that the classifier does not see.

    Attributes:
        weight: factor on its loss.
        decoder: its decoder; null takes the pre-trained model's, weights and all.
        target: what it predicts; null is what the pre-trained decoder has learned, where that is taken, else
            VideoMAE's target.
    """

    weight: float = 0.1
    decoder: DecoderConfig | None = None
    target: PixelTarget | None = None

    def __post_init__(self) -> None:
        require_at_least(0, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """Training a classifier: on all tokens or, with a masking, on some of them (MAR).

    Attributes:
        data: the clips and their labels.
        init: pre-trained model to start from, or null to start from random weights.
        frames: frames of a clip; null is as init has it, else its positions are resized.
        image_size: side of the frames in pixels, likewise.
        encoder: the encoder's architecture where there is no init; with an init, null.
        head: from tokens to class scores.
        masking: train and recognise on the tokens that this leaves visible; null uses all.
        reconstruction: with a masking, also paint the tokens left out; null does not.
        drop_path: drop-path rate of the encoder's last block, in [0, 1).
        label_smoothing: probability given to all classes alike, in [0, 1).
        mixing: mixup and cutmix of the training clips and their labels; null does not mix.
        optim: the optimization.
        views: clips and crops of a video that a test averages over.
        seed: of everything random, in [0, 2**63).
        save: checkpoints and logs.
        runtime: device, precision and processes.
    """

    task: Literal["finetune"] = "finetune"
    data: FinetuneDataConfig
    optim: OptimConfig
    init: str | None = None
    frames: int | None = None
    image_size: int | None = None
    encoder: EncoderConfig | None = None
    head: AnyHeadConfig = field(default_factory=LinearHeadConfig)
    masking: RunningCellMasking | None = None
    reconstruction: ReconstructionConfig | None = None
    drop_path: float = 0.1
    label_smoothing: float = 0.1
    mixing: Mixing | None = None
    views: Views = field(default_factory=Views)
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        require_at_least(1, frames=self.frames, image_size=self.image_size)
        for name in ("frames", "image_size"):
            if self.init is None and getattr(self, name) is not None:
                raise UserError(f"{name} is for the model of init, and there is none: set encoder.{name}")
        for name in ("drop_path", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), found {getattr(self, name)}")
        if self.reconstruction and not self.masking:
            raise UserError("reconstruction needs a masking: without one there is nothing to paint")


@dataclass(frozen=True, kw_only=True)
class TestDataConfig:
    """Where the videos of a test come from.

    Attributes:
        root: folder of the data set, with its lists (test.csv, …) and classes.txt.
        split: list to test on.
        clip: which frames of a video make a clip; null is as the model was trained.
        workers: decoding processes beside each testing process; null is one for each core, or half as many
            where the network computes on the CPU too.
    """

    __test__ = False  # not a test case, whatever its name says

    root: Path
    split: str = "test"
    clip: AnyClip | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_at_least(0, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """Testing a classifier on a list of videos.

    Attributes:
        data: the videos and their labels.
        views: clips and crops of a video that are averaged over; null is what the model's recipe says.
        masking: recognise on the tokens that this leaves visible; null is as the model was trained.
        complementary: average the class scores over the masks that together show every token once (two at
            one half masked, four at three quarters), as MAR's complementary test does.
        batch_size: videos decoded and tested at a time in each process.
        runtime: device, precision and processes.
    """

    task: Literal["evaluate"] = "evaluate"
    data: TestDataConfig
    views: Views | None = None
    masking: RunningCellMasking | None = None
    complementary: bool = False
    batch_size: int = 8
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)


Recipe = PretrainRecipe | FinetuneRecipe
TASKS: dict[str, type[Recipe]] = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}


def load_recipe(name: str, *overrides: str) -> Recipe:
    """Read a recipe and check it.

    Args:
        name: a shipped recipe (`tubelet recipe list`) or a YAML file.
        overrides: settings to change, as "key.subkey=value"; values are YAML.

    Raises:
        UserError: the recipe is not there, or a setting is unknown, misspelt, missing or of the wrong type.
    """
    text = _read(name)
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{name} must hold settings as `key: value`, found {type(settings).__name__}")
    for override in overrides:
        _set(settings, override)
    task = settings.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"{name}: task must be one of {', '.join(TASKS)}, found {task!r}")
    return parse(TASKS[task], settings, name)


def evaluate_recipe(*overrides: str) -> EvaluateRecipe:
    """The settings of a test, from "key.subkey=value" alone; raises as `load_recipe` does."""
    settings: dict[str, Any] = {}
    for override in overrides:
        _set(settings, override)
    return parse(EvaluateRecipe, settings, "the command line")


def recipe_names() -> list[str]:
    """The shipped recipes."""
    root = _shipped()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def to_plain(value: Any) -> Any:
    """Settings as plain dicts, lists, strings and numbers, for YAML and JSON."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def to_yaml(recipe: Recipe) -> str:
    """All settings of a recipe, defaults included, as YAML."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, default_flow_style=None, width=110)


def parse(kind: Any, settings: Mapping[str, Any], source: str) -> Any:
    """Build the dataclass `kind` from plain settings, refusing whatever does not fit.

    Raises:
        UserError: one line for each setting that is unknown, missing or wrong, with its path.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        value = adapter.validate_python(settings)
    except ValidationError as error:
        problems = list(_problems(error, settings, kind))
    else:
        problems = list(_unknown(settings, adapter.dump_python(value), kind, ()))
    if problems:
        once = dict.fromkeys(problems)  # alternatives of a union may fail alike
        raise UserError("\n  ".join([f"{source} has settings that do not fit:", *once]))
    return value


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two recipes in plain form: "key: old -> new"."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    keys = [*flat_old, *(key for key in flat_new if key not in flat_old)]
    return [
        f"{key}: {flat_old.get(key, 'absent')} -> {flat_new.get(key, 'absent')}"
        for key in keys
        if flat_old.get(key, "absent") != flat_new.get(key, "absent")
    ]


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must lie in [0, 2**63), found {seed}")


def _shipped() -> Path:
    return Path(str(resources.files("tubelet") / "recipes"))


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"no recipe file at {path}")
        return read_text(path, "a recipe")
    shipped = _shipped() / f"{name}.yaml"
    if not shipped.is_file():
        known = recipe_names()
        raise UserError(
            f"no recipe '{name}'{did_you_mean(name, known) or ';'} `tubelet recipe list` shows them all; "
            "a recipe of your own is a file that ends in .yaml"
        )
    return shipped.read_text(encoding="utf-8")


def _set(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not a setting: write key=value, such as optim.epochs=30")
    place = settings
    *parents, last = key.split(".")
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise UserError(f"{key}: '{parent}' is a single setting and has nothing below it")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{key}: '{text}' is not a valid YAML value") from None
    if isinstance(value, str) and value.startswith("~/"):  # shells expand it at the beginning of a word alone
        value = str(Path(value).expanduser())
    place[last] = value


def _problems(error: ValidationError, settings: Mapping[str, Any], kind: Any) -> Iterator[str]:
    details = error.errors()
    # A union fails once for each of its alternatives: `kind` says which of them is meant, if any.
    others = {
        detail["loc"][:-1]: detail
        for detail in details
        if detail["type"] == "literal_error" and detail["loc"][-1] == "kind"
    }
    for detail in details:
        loc, given = detail["loc"], detail["input"]
        path = _path(loc, settings)
        if detail["type"] == "missing":
            path.append(str(loc[-1]))
        key = ".".join(path)
        at = f"{key}: " if key else ""
        other = next((branch for branch in others if loc[: len(branch)] == branch), None)
        if other is not None:
            yield from _wrong_kind(other, others, details, settings)
            continue
        match detail["type"]:
            case "missing":
                beside = [name for name in (given if isinstance(given, dict) else {}) if name != path[-1]]
                yield f"{key} is missing{_misspelt(path[-1], beside)}"
            case "value_error":
                yield f"{at}{detail['ctx']['error']}"
            case "dataclass_type":
                hint = _as_kind(key, given, _alternatives(kind, path))
                yield f"{at}expected settings as `key: value`, found {given!r}{hint}"
            case _:
                yield f"{at}{detail['msg'][0].lower()}{detail['msg'][1:]}, found {given!r}"


def _path(loc: Sequence[Any], settings: Any) -> list[str]:
    """The settings that lead to a problem; pydantic puts the alternatives of unions between them."""
    path = []
    for part in loc:
        try:
            settings = settings[part]
        except (LookupError, TypeError):
            continue
        path.append(str(part))
    return path


def _wrong_kind(
    other: tuple[Any, ...], others: Mapping[Any, Any], details: Sequence[Any], settings: Any
) -> Iterator[str]:
    """Of an alternative that `kind` does not mean: nothing, unless it means none of them."""
    place = _path(other, settings)
    here = [detail["loc"] for detail in details if _path(detail["loc"], settings)[: len(place)] == place]
    alternatives = {loc[: len(other)] for loc in here}
    if alternatives <= others.keys():
        kinds = [others[one]["ctx"]["expected"].strip("'") for one in others if one in alternatives]
        given = others[other]["input"]
        yield (
            f"{'.'.join([*place, 'kind'])} must be {'one of ' if len(kinds) > 1 else ''}{', '.join(kinds)}, "
            f"found {given!r}{did_you_mean(str(given), kinds)}"
        )


def _misspelt(name: str, given: Sequence[str]) -> str:
    near = did_you_mean(name, given)
    return near.replace("did you mean", "is it meant by") if near else ""


def _unknown(given: Any, known: Any, kind: Any, path: Sequence[str]) -> Iterator[str]:
    """Keys that validation passed over because no field has their name."""
    if not isinstance(given, Mapping) or not isinstance(known, Mapping):
        return
    place = ".".join(path)
    prefix = f"{place}." if place else ""
    names = {item.name for option in _alternatives(kind, path) for item in fields(option)}
    for key, value in given.items():
        if key in known:
            yield from _unknown(value, known[key], kind, [*path, str(key)])
        elif key not in names:
            yield f"{prefix}{key} is not a setting{did_you_mean(str(key), [str(k) for k in known])}"
    others = [f"{prefix}{key}" for key in given if key not in known and key in names]
    if others:  # settings of another kind: they stood there when this one was chosen
        are = "is not a setting" if len(others) == 1 else "are not settings"
        chosen = known["kind"]
        yield f"{', '.join(others)} {are} of kind {chosen}" + (
            f": '{place}={{kind: {chosen}}}' replaces the whole of {place}" if place else ""
        )


def _alternatives(kind: Any, path: Sequence[str]) -> list[Any]:
    """The dataclasses that the settings at a path may be."""
    options = [option for option in get_args(kind) or (kind,) if is_dataclass(option)]
    if not path:
        return options
    here = [item.type for option in options for item in fields(option) if item.name == path[0]]
    return [option for type in here for option in _alternatives(type, path[1:])]


def _as_kind(key: str, given: Any, options: Sequence[Any]) -> str:
    """How to write settings whose kind alone is given, with the nearest there is."""
    kinds = [option.kind for option in options if hasattr(option, "kind")]
    if not kinds or not isinstance(given, str):
        return ""
    near = get_close_matches(given, kinds, n=1, cutoff=0)[0]
    return f"; write '{key}={{kind: {near}}}'"


def _flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, settings
