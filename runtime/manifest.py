"""The manifest: what an artifact holds and what it needs, validated field by field.

Nothing here trusts the text: a wrong type, a size out of range, an unknown element type or a
weight outside ``weights.bin`` raises ArtifactError naming the field.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..contract import (
    ALIGNMENT,
    BLANK_DIGEST,
    EXPANDED,
    HOST,
    MANIFEST,
    MEMBER_KIND,
    MEMBER_NAME,
    MEMBERS,
    MOST_MEMBERS,
    POLLS_ALWAYS,
    POLLS_LONG,
    SCHEMA,
    WEIGHTS,
)
from .dtypes import KNOWN, STORAGE, STRING, ort_name
from .errors import ArtifactError

_HEX64 = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE = 1 << 62
_MAX_NESTING = 16
_MAX_RANK = 64
_MAX_DEVICES = 64
_HOST_KINDS = ("cpu", "llvm", "c")

Dim: TypeAlias = "int | str | None"
Json: TypeAlias = "dict[str, Any]"
T = TypeVar("T")


class ValueSpec(NamedTuple):
    """An input, an output, or what a sequence or an optional holds.

    ``kind`` is ``tensor``, ``sequence`` or ``optional``. ``shape`` is None for an unknown rank; a
    dimension is an int, the text of a symbolic expression, or None. ``optional`` inputs may be
    left out of the feeds. ``keys`` are the names of the columns of an output that is a matrix here
    and a list of maps for users. ``default`` is the number of the weight that an input is where it
    is left out.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[Dim, ...] | None
    optional: bool = False
    elem: ValueSpec | None = None
    keys: tuple[int | str, ...] = ()
    default: int | None = None

    @property
    def ort_type(self) -> str:
        """onnxruntime's spelling: ``tensor(float)``, ``seq(tensor(int64))``, ``optional(...)``."""
        if self.keys:
            key = "string" if type(self.keys[0]) is str else "int64"
            return f"seq(map({key},tensor({ort_name(self.dtype)})))"
        if self.elem is None:
            return f"tensor({ort_name(self.dtype)})"
        return f"{'seq' if self.kind == 'sequence' else 'optional'}({self.elem.ort_type})"


class TargetSpec(NamedTuple):
    """The machine an artifact was compiled for; ``features`` are flags of ``/proc/cpuinfo``."""

    kind: str
    name: str
    triple: str
    arch: str
    features: tuple[str, ...]


class WeightSpec(NamedTuple):
    """One weight: its storage dtype or IR dtype, its shape, and its bytes in ``weights.bin``.

    ``space`` is the memory space in which code wants it. ``offset`` and ``nbytes`` are those in
    memory; in ``weights.bin`` it begins at ``stored``, and if it is there without its zeros,
    ``nonzeros`` elements are left (see :data:`graphkiln.contract.EXPANDED`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    space: str = HOST
    stored: int = 0
    nonzeros: int | None = None


class FileSpec(NamedTuple):
    """Size and SHA-256 of a member's content."""

    sha256: str
    size: int


class MemberSpec(NamedTuple):
    """A further member: its kind, which begins with the device that reads it, and its content's."""

    kind: str
    file: FileSpec


class NativeSpec(NamedTuple):
    """What native code works on: the template of its frame, and pairs of words to add.

    ``stop`` is the frame's word for signals, which older artifacts do not have.
    """

    words: WeightSpec
    fixups: WeightSpec
    stop: int | None = None


class Manifest(NamedTuple):
    """A validated manifest; ``raw`` is the JSON object it was read from.

    ``native`` is None where the model needs the virtual machine. ``polls`` says whether bytecode
    looks for signals, and which runs to watch: ``always`` all, ``long`` those that take long.
    ``devices`` are those that run kernels beside the host, ``spaces`` the memory that code asks for
    beside the host's, in the order of its numbers. ``expanded`` are the bytes of all weights in
    memory, None where those are the bytes of ``weights.bin``.
    """

    target: TargetSpec
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]
    weights: tuple[WeightSpec, ...]
    files: dict[str, FileSpec]
    members: dict[str, MemberSpec]
    checksum: tuple[str, str]
    host_functions: tuple[str, ...]
    native: NativeSpec | None
    polls: str | None
    devices: tuple[str, ...]
    spaces: tuple[str, ...]
    expanded: int | None
    raw: Json


def parse_manifest(data: bytes) -> Manifest:
    """Reads ``manifest.json``. Raises ArtifactError for anything that is not right."""
    raw = _decode(data)
    schema = _get(raw, "schema", int, "manifest")
    if schema != SCHEMA:
        hint = "upgrade graphkiln" if schema > SCHEMA else "compile the model again"
        raise ArtifactError(f"artifact schema {schema}, this graphkiln reads {SCHEMA}: {hint}")
    _check_digest(raw, data)
    producer = _get(raw, "producer", dict, "manifest")
    _get(producer, "graphkiln", str, "producer")
    _get(raw, "provenance", dict, "manifest")
    files = _files(_get(raw, "files", dict, "manifest"))
    expanded = _size(raw, EXPANDED, "manifest") if EXPANDED in raw else None
    weights = _weights(_get(raw, "weights", list, "manifest"), files[WEIGHTS].size, expanded)
    target = _target(_get(raw, "target", dict, "manifest"))
    devices, spaces = _devices(raw, target), _names(raw, "spaces")
    for space in spaces:
        if space not in devices:
            raise ArtifactError(f"spaces: {space!r} is none of the devices")
    if stray := {w.space for w in weights} - {HOST, *spaces}:
        raise ArtifactError(f"weights: {min(stray)!r} is none of the spaces")
    return Manifest(
        target=target,
        inputs=_with_defaults(raw, _values(raw, "inputs"), weights),
        outputs=_values(raw, "outputs"),
        weights=weights,
        files=files,
        members=_members(raw),
        checksum=_checksum(_get(raw, "weights_checksum", dict, "manifest")),
        host_functions=_strings(raw, "host_functions", "manifest"),
        native=_native(raw, weights),
        polls=_polls(raw),
        devices=devices,
        spaces=spaces,
        expanded=expanded,
        raw=raw,
    )


def _devices(raw: Json, target: TargetSpec) -> tuple[str, ...]:
    """The devices; artifacts for hosts alone say nothing of them, nor do old ones for GPUs."""
    if "devices" in raw or target.kind in _HOST_KINDS:
        return _names(raw, "devices")
    return (target.kind,)


def _names(raw: Json, key: str) -> tuple[str, ...]:
    names = _strings(raw, key, "manifest") if key in raw else ()
    if len(set(names)) < len(names) or HOST in names or len(names) > _MAX_DEVICES:
        raise ArtifactError(f"manifest: {key!r} must hold different names of devices")
    return names


def _polls(raw: Json) -> str | None:
    polls = raw.get("polls")
    if polls not in (None, POLLS_ALWAYS, POLLS_LONG):
        raise ArtifactError(f"manifest: unknown 'polls' {polls!r}")
    return polls


def _native(raw: Json, weights: tuple[WeightSpec, ...]) -> NativeSpec | None:
    if "native" not in raw:
        return None
    entry = _get(raw, "native", dict, "manifest")
    words, fixups = (_weight_at(entry, key, weights) for key in ("words", "fixups"))
    if len(words.shape) != 1 or len(fixups.shape) != 2 or fixups.shape[1] != 2:
        raise ArtifactError("native: wrong shapes of words or fixups")
    stop = _size(entry, "stop", "native") if "stop" in entry else None
    if stop is not None and stop >= words.shape[0]:
        raise ArtifactError("native: 'stop' is no word of the frame")
    return NativeSpec(words, fixups, stop)


def _weight_at(entry: Json, key: str, weights: tuple[WeightSpec, ...]) -> WeightSpec:
    index = _size(entry, key, "native")
    if index >= len(weights) or weights[index].dtype != "int64":
        raise ArtifactError(f"native: {key!r} is not the number of an int64 weight")
    return weights[index]


def _decode(data: bytes) -> Json:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"manifest.json is not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ArtifactError("manifest.json is not a JSON object")
    return raw


def _check_digest(raw: Json, data: bytes) -> None:
    """The manifest's own hash is taken with 64 zeros in its place."""
    digest = _hex(raw, "self_sha256", "manifest")
    blank = data.replace(digest.encode(), BLANK_DIGEST.encode(), 1)
    if hashlib.sha256(blank).hexdigest() != digest:
        raise ArtifactError("manifest.json does not match its own SHA-256: the file is damaged")


def _get(obj: Json, key: str, kind: type[T], where: str) -> T:
    """A required field of one JSON type; a bool is not an int."""
    value = obj.get(key)
    if type(value) is not kind:
        found = "missing" if key not in obj else f"a {type(value).__name__}"
        raise ArtifactError(f"{where}: {key!r} must be a {kind.__name__}, it is {found}")
    return value


def _size(obj: Json, key: str, where: str) -> int:
    value = _get(obj, key, int, where)
    if not 0 <= value <= _MAX_SIZE:
        raise ArtifactError(f"{where}: {key!r} is out of range ({value})")
    return value


def _hex(obj: Json, key: str, where: str) -> str:
    value = _get(obj, key, str, where)
    if not _HEX64.fullmatch(value):
        raise ArtifactError(f"{where}: {key!r} is not a SHA-256 in hexadecimal")
    return value


def _strings(obj: Json, key: str, where: str) -> tuple[str, ...]:
    values = _get(obj, key, list, where)
    if not all(type(v) is str for v in values):
        raise ArtifactError(f"{where}: {key!r} must hold strings")
    return tuple(values)


def _target(obj: Json) -> TargetSpec:
    return TargetSpec(
        kind=_get(obj, "kind", str, "target"),
        name=_get(obj, "name", str, "target"),
        triple=_get(obj, "triple", str, "target"),
        arch=_get(obj, "arch", str, "target"),
        features=_strings(obj, "features", "target"),
    )


def _files(obj: Json) -> dict[str, FileSpec]:
    files = {m: _file(_get(obj, m, dict, "files"), f"files[{m!r}]") for m in MEMBERS}
    if len(obj) != len(files):
        raise ArtifactError(f"files: unknown member {sorted(set(obj) - set(files))[0]!r}")
    return files


def _file(entry: Json, where: str) -> FileSpec:
    return FileSpec(_hex(entry, "sha256", where), _size(entry, "size", where))


def _members(raw: Json) -> dict[str, MemberSpec]:
    """What targets added. Whether a device here reads such kinds is asked when it is loaded."""
    entries = _get(raw, "members", dict, "manifest") if "members" in raw else {}
    if len(entries) > MOST_MEMBERS:
        raise ArtifactError(f"members: more than {MOST_MEMBERS}")
    found = {}
    for name in entries:
        if name in (*MEMBERS, MANIFEST) or not MEMBER_NAME.fullmatch(name):
            raise ArtifactError(f"members: {name!r} is no name of a member")
        where = f"members[{name!r}]"
        entry = _get(entries, name, dict, "members")
        kind = _get(entry, "kind", str, where)
        if not MEMBER_KIND.fullmatch(kind):
            raise ArtifactError(f"{where}: {kind!r} is no kind of a member")
        found[name] = MemberSpec(kind, _file(entry, where))
    return found


def _checksum(obj: Json) -> tuple[str, str]:
    where = "weights_checksum"
    return _get(obj, "algorithm", str, where), _hex(obj, "digest", where)


def _values(raw: Json, key: str) -> tuple[ValueSpec, ...]:
    entries = _get(raw, key, list, "manifest")
    specs = tuple(_value(entry, f"{key}[{i}]") for i, entry in enumerate(entries))
    # A model may give one output twice; then everything about the two is the same.
    distinct = set(specs) if key == "outputs" else specs
    if len({spec.name for spec in specs}) != len(distinct):
        raise ArtifactError(f"{key}: two values have the same name")
    return specs


def _with_defaults(
    raw: Json, inputs: tuple[ValueSpec, ...], weights: tuple[WeightSpec, ...]
) -> tuple[ValueSpec, ...]:
    found = []
    for i, (spec, entry) in enumerate(zip(inputs, raw["inputs"], strict=True)):
        if "default" in entry:
            where = f"inputs[{i}]"
            index = _size(entry, "default", where)
            if index >= len(weights) or spec.kind != "tensor" or weights[index].dtype != spec.dtype:
                raise ArtifactError(f"{where}: 'default' is not the number of a fitting weight")
            spec = spec._replace(default=index)
        found.append(spec)
    return tuple(found)


def _value(entry: Any, where: str, depth: int = 0) -> ValueSpec:
    if type(entry) is not dict:
        raise ArtifactError(f"{where}: not a JSON object")
    if depth > _MAX_NESTING:
        raise ArtifactError(f"{where}: nested too deeply")
    kind = _get(entry, "kind", str, where)
    name = entry.get("name", "") if depth else _get(entry, "name", str, where)
    optional = entry.get("optional", False)
    if type(optional) is not bool or type(name) is not str:
        raise ArtifactError(f"{where}: 'optional' must be a bool and 'name' a str")
    if kind in ("sequence", "optional"):
        elem = _value(entry.get("elem"), f"{where}.elem", depth + 1)
        return ValueSpec(name, kind, elem.dtype, None, optional, elem)
    if kind != "tensor":
        raise ArtifactError(f"{where}: unknown kind {kind!r}")
    dtype = _get(entry, "dtype", str, where)
    if dtype not in KNOWN:
        raise ArtifactError(f"{where}: unknown element type {dtype!r}")
    spec = ValueSpec(name, kind, dtype, _shape(entry, where), optional)
    return spec._replace(keys=_keys(entry["keys"], spec, where)) if "keys" in entry else spec


def _keys(keys: Any, spec: ValueSpec, where: str) -> tuple[int | str, ...]:
    if type(keys) is not list or {type(k) for k in keys} not in ({int}, {str}):
        raise ArtifactError(f"{where}: 'keys' must be a list of ints or of strings")
    if spec.dtype != "float32" or spec.shape is None or spec.shape[1:] != (len(keys),):
        raise ArtifactError(f"{where}: {len(keys)} keys do not fit a {spec.dtype} {spec.shape}")
    return tuple(keys)


def _shape(entry: Json, where: str) -> tuple[Dim, ...] | None:
    shape = entry.get("shape")
    if shape is None:
        return None
    if type(shape) is not list:
        raise ArtifactError(f"{where}: 'shape' must be a list or null")
    _check_rank(shape, where)
    for dim in shape:
        if not (dim is None or type(dim) is str or (type(dim) is int and 0 <= dim <= _MAX_SIZE)):
            raise ArtifactError(f"{where}: {dim!r} is not a dimension")
    return tuple(shape)


def _check_rank(shape: list[Any], where: str) -> None:
    """NumPy's limit, which also keeps products of dims short."""
    if len(shape) > _MAX_RANK:
        raise ArtifactError(f"{where}: more than {_MAX_RANK} dimensions")


def _weights(entries: list[Any], total: int, expanded: int | None) -> tuple[WeightSpec, ...]:
    """``total`` are the bytes of ``weights.bin``, ``expanded`` those in memory if they differ."""
    places = enumerate(entries)
    if expanded is None:
        return tuple(_weight(entry, f"weights[{i}]", total) for i, entry in places)
    found = tuple(_stored(entry, f"weights[{i}]", total, expanded) for i, entry in places)
    # A bit in the file stands for at most eight bytes, so a small file cannot ask for all memory.
    if not 0 < expanded <= 64 * (total + ALIGNMENT * len(found)):
        raise ArtifactError(f"manifest: {EXPANDED!r} is {expanded}, of {total} bytes stored")
    return found


def _stored(entry: Any, where: str, total: int, expanded: int) -> WeightSpec:
    """A weight, and where it begins in ``weights.bin``."""
    spec = _weight(entry, where, expanded)
    size = STORAGE[spec.dtype].itemsize
    stored, nbytes = _size(entry, "stored", where), spec.nbytes
    nonzeros = _size(entry, "nonzeros", where) if "nonzeros" in entry else None
    if nonzeros is not None:
        bits, values = compact_bytes(nbytes // size, nonzeros, size)
        nbytes = bits + values
    if stored % ALIGNMENT or stored + nbytes > total:
        raise ArtifactError(f"{where}: lies outside weights.bin or is not aligned")
    return spec._replace(stored=stored, nonzeros=nonzeros)


def compact_bytes(elements: int, nonzeros: int, itemsize: int) -> tuple[int, int]:
    """Of a weight without its zeros: the bytes of its bits, and of the elements that are left."""
    return -(-elements // 64) * 8, nonzeros * itemsize


def _weight(entry: Any, where: str, total: int) -> WeightSpec:
    if type(entry) is not dict:
        raise ArtifactError(f"{where}: not a JSON object")
    dtype = _get(entry, "dtype", str, where)
    if dtype not in KNOWN or dtype == STRING:
        raise ArtifactError(f"{where}: unknown element type {dtype!r}")
    shape = _get(entry, "shape", list, where)
    _check_rank(shape, where)
    nbytes = STORAGE[dtype].itemsize
    for dim in shape:
        if type(dim) is not int or not 0 <= dim <= _MAX_SIZE:
            raise ArtifactError(f"{where}: {dim!r} is not a dimension")
        nbytes *= dim
    spec = WeightSpec(
        name=_get(entry, "name", str, where),
        dtype=dtype,
        shape=tuple(shape),
        offset=_size(entry, "offset", where),
        nbytes=_size(entry, "nbytes", where),
        space=_get(entry, "space", str, where) if "space" in entry else HOST,
    )
    if spec.nbytes != nbytes:
        raise ArtifactError(f"{where}: 'nbytes' is {spec.nbytes}, the shape needs {nbytes}")
    if spec.offset % ALIGNMENT or spec.offset + nbytes > total:
        raise ArtifactError(f"{where}: lies outside weights.bin or is not aligned")
    return spec
