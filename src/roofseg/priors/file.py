"""Make a prior of a file of the user's: read its tensors, rename them, and check every one.

Files are read as safetensors, or by torch with ``weights_only=True``, which builds tensors and
plain containers and nothing else: no code in a file is ever run.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file, user_path
from roofseg.models.roof_model import build_encoder
from roofseg.priors.record import Origin, check_finite, keep_made, write_prior
from roofseg.recipe.priors import FilePrior
from roofseg.recipe.rules import pattern, replacement
from roofseg.tiles.licence import declared_licence

Tensors = dict[str, torch.Tensor]

SHOWN = 5  # names that an error lists
COUNTER = ".num_batches_tracked"  # of BatchNorm; unused, and missing in files before torch 0.4.1


def make_file_prior(name: str, declared: FilePrior, folder: Path) -> tuple[Path, list[str]]:
    """Make the prior ``name`` of a file; return the path of its weights, and notes for the user.

    Without the file, weights that were made of it before are kept.

    Raises:
        UserError: the file is missing and nothing was made of it; it is another file than declared
            or holds more than tensors; or its tensors are not, after ``rename`` and ``ignore``,
            exactly those of the encoder
    """
    path, key = user_path(declared.file), f"priors.files.{name}"
    decisive, licence = declared.decisive(), declared_licence(declared.licence)
    if not path.is_file():
        made = folder / f"{name}.safetensors"
        if keep_made(folder, name, declared=decisive, encoder=declared.encoder, licence=licence):
            return made, [f"{path} is not here; {made} was made of it before, and is kept"]
        raise UserError(
            f"{key}.file: {path}: no such file. Put it there or correct the path. It is not needed "
            f"where {made}, which `dvc pull {made}` gets, is what {made.with_suffix('.json')} in "
            "git records of this declaration."
        )
    if (path.parent / "recipe.json").is_file():
        raise UserError(
            f"{key}.file: {path}: a recipe.json lies beside it, so it is a model of this program. "
            "Declare its folder under priors.models, which checks the tiles that it has seen."
        )
    if (found := sha256_file(path)) != declared.sha256:
        raise UserError(
            f"{key}.sha256: {path} has the SHA-256 {found}, expected {declared.sha256}. If this is "
            "the file that you mean, write its SHA-256 there."
        )
    encoder, _ = build_encoder(declared.encoder)
    held = read_tensors(path, declared.key)
    tensors = renamed(held, declared, path)
    fitted, notes = fit(tensors, encoder.state_dict(), f"{path} ({key})", declared.encoder)
    fits = f"all {len(fitted)} tensors of encoder {declared.encoder} are in {path.name}"
    ignored = f", {len(held) - len(tensors)} left out" if len(held) > len(tensors) else ""
    notes = [fits + ignored, *notes]
    origin = Origin(
        f"file {path.name}",
        None,
        declared.sha256,
        declared.encoder,
        (declared.mean, declared.std),
        licence,
        decisive,
    )
    return write_prior(folder, name, fitted, origin), notes


def read_tensors(path: Path, key: str | None = None) -> Tensors:
    """Read the tensors of a safetensors file or of a checkpoint of torch, by name.

    ``key`` says where in a nested checkpoint they are; dots lead deeper. Without it they are the
    checkpoint itself, or its only entry that holds nothing but tensors.

    Raises:
        UserError: the file is damaged, holds other Python objects than tensors and plain values, or
            has no tensors at ``key``
    """
    # A safetensors file begins with the length of its header and the header's "{".
    with path.open("rb") as file:
        if path.suffix == ".safetensors" or file.read(9)[8:] == b"{":
            return _read_safetensors(path, key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common error; a truncated file can give an OSError
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: cannot be read as a checkpoint that holds only tensors "
            f"({type(error).__name__}: {reason[:300]}). It is damaged, or it holds other Python "
            "objects, which are never unpickled: loading them can run code. Get the file again; or "
            "where you trust it, save its tensors alone: safetensors.torch.save_file("
            "model.state_dict(), 'weights.safetensors')."
        ) from None
    return _nested(content, key, path)


def _read_safetensors(path: Path, key: str | None) -> Tensors:
    if key is not None:
        raise UserError(f"{path}: a safetensors file has no entries, so remove `key: {key}`.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path}: damaged, or not a safetensors file ({error}). Get the file again."
        ) from None


def _nested(content: Any, key: str | None, path: Path) -> Tensors:
    """The tensors in a checkpoint's content; see `read_tensors`."""
    if key is not None:
        for part in key.split("."):
            content = content.get(part) if isinstance(content, Mapping) else None
        if not _is_tensors(content):
            raise UserError(f"{path}: key: {key} does not hold tensors by name.")
        return dict(content)
    if _is_tensors(content):
        return dict(content)
    entries = dict(content) if isinstance(content, Mapping) else {}
    nested = [name for name, value in entries.items() if _is_tensors(value)]
    if len(nested) == 1:
        return dict(entries[nested[0]])
    if nested:
        raise UserError(
            f"{path}: several entries hold tensors: {', '.join(map(str, nested))}. Say which is "
            f"meant, for example `key: {nested[0]}`."
        )
    found = f"entries {_listed(map(str, entries))}" if entries else f"a {type(content).__name__}"
    raise UserError(
        f"{path}: found {found}; expected tensors by name, or one entry that holds them. If they "
        "lie deeper, name the entries that lead there: `key: outer.inner`."
    )


def _is_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def renamed(tensors: Mapping[str, torch.Tensor], declared: FilePrior, path: Path) -> Tensors:
    """Leave out the tensors that ``ignore`` names, and give the others the names of ``rename``.

    Raises UserError for a rule that finds nothing, and for two tensors that get the same name.
    """
    kept = dict(tensors)
    for rule in declared.ignore:
        for name in _found(rule, kept, "ignore", path):
            del kept[name]
    names = {name: name for name in kept}  # the new name of each
    for rule, new in declared.rules:
        _found(rule, names.values(), "rename", path)
        text = replacement(rule, new)
        names = {old: pattern(rule).sub(text, name) for old, name in names.items()}
    result: Tensors = {}
    for old, name in names.items():
        if name in result:
            first = next(other for other in names if names[other] == name)
            raise UserError(
                f"{path}: rename gives {first} and {old} the same name, {name}. Make its rules "
                "more specific, or leave one of the two out with `ignore`."
            )
        result[name] = kept[old]
    return result


def _found(rule: str, names: Iterable[str], key: str, path: Path) -> list[str]:
    """The names that a rule fits; UserError if there are none."""
    names = list(names)
    found = [name for name in names if pattern(rule).search(name)]
    if not found:
        raise UserError(
            f"{path}: {key}: no tensor's name fits {rule}. The names are {_listed(names)}. "
            "Correct the rule or remove it."
        )
    return found


def fit(
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    source: str,
    encoder: str,
) -> tuple[Tensors, list[str]]:
    """Check that ``tensors`` are those of the encoder, in name and shape, and finite.

    Args:
        tensors: what a file holds, by the names in the encoder
        expected: the state of the encoder
        source: the file and the key of its declaration, for errors
        encoder: the encoder's name, for errors

    Returns:
        The tensors in the encoder's types (half precision becomes float32), with counters of
        BatchNorm that an old file lacks; and notes on what was converted.

    Raises:
        UserError: tensors are missing, left over, of another shape or kind, or not finite
    """
    counters = {
        name: torch.zeros_like(expected[name])
        for name in expected.keys() - tensors.keys()
        if name.endswith(COUNTER) and name.replace(COUNTER, ".running_mean") in tensors
    }
    found = {**tensors, **counters}
    missing = [name for name in expected if name not in found]
    unused = [name for name in found if name not in expected]
    problems = []
    if missing:
        nearest = _nearest(missing, unused)
        problems.append(f"lacks {len(missing)} of {len(expected)} tensors: {_listed(nearest)}")
    if unused:
        problems.append(f"has {len(unused)} left over: {_listed(unused)}")
    shared = [name for name in expected if name in found]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in shared
        if found[name].shape != expected[name].shape
    ]
    if shapes:
        problems.append(f"has {len(shapes)} of another shape: {_listed(shapes)}")
    if problems:
        remedy = (
            "`rename` gives tensors other names, and `ignore` leaves heads out (docs/priors.md)."
            if missing or unused
            else "It belongs to another encoder."
        )
        raise UserError(
            f"{source} does not hold the weights of encoder {encoder}.\n  It "
            + "\n  It ".join(problems)
            + f"\n  {remedy}"
        )
    result, notes = _converted(found, expected, source)
    if counters:
        notes.append(f"{len(counters)} counters of BatchNorm that it lacks begin at zero")
    return result, notes


def _converted(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str
) -> tuple[Tensors, list[str]]:
    """The tensors in the types of ``expected``, and a note on each type that was converted."""
    result: Tensors = {}
    kinds: dict[str, int] = {}
    for name, wanted in expected.items():
        tensor = found[name]
        kind = f"{tensor.dtype}".removeprefix("torch.")
        if tensor.layout != torch.strided:
            raise UserError(
                f"{source}: {name} is sparse ({tensor.layout}). Save dense tensors (`.to_dense()`)."
            )
        if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex():
            raise UserError(
                f"{source}: {name} has the type {tensor.dtype}, expected {wanted.dtype}. Save "
                "weights that are not quantized."
            )
        result[name] = tensor.to(wanted.dtype)
        check_finite(name, result[name], source)
        if tensor.is_floating_point() and tensor.dtype != wanted.dtype:
            kinds[kind] = kinds.get(kind, 0) + 1
    return result, [f"{count} tensors of {kind} became float32" for kind, count in kinds.items()]


def _nearest(missing: list[str], unused: list[str]) -> list[str]:
    """The missing names, the first of them with the most similar names that are left over."""
    lines = []
    for name in missing[:SHOWN]:
        close = difflib.get_close_matches(name, unused, n=1, cutoff=0.5)
        lines.append(f"{name} (nearest: {close[0]})" if close else name)
    return lines + missing[SHOWN:]


def _listed(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
