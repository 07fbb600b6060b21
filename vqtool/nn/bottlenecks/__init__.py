"""The bottlenecks by name. To add one: write its file, add its line here and a row in docs/models.md."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from vqtool.config import check_kind, suggestion
from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Bottleneck, BottleneckOutput
from vqtool.nn.bottlenecks.fsq import FSQ
from vqtool.nn.bottlenecks.product import ProductVQ
from vqtool.nn.bottlenecks.rvq import ResidualVQ, VectorQuantizer
from vqtool.nn.bottlenecks.vae import GaussianBottleneck

BOTTLENECKS: dict[str, type[Bottleneck]] = {
    "vae": GaussianBottleneck,
    "vq": VectorQuantizer,
    "rvq": ResidualVQ,
    "fsq": FSQ,
    "product": ProductVQ,
}

__all__ = ["BOTTLENECKS", "Bottleneck", "BottleneckOutput", "bottleneck_options", "build_bottleneck"]


def bottleneck_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a bottleneck, the constructor's defaults where `options` says nothing; see Bottleneck.resolve.

    Raises UsageError for an unknown name or option, naming what there is.
    """
    if name not in BOTTLENECKS:
        raise UsageError(f"no model {name!r}; there are {', '.join(BOTTLENECKS)}")
    parameters = inspect.signature(BOTTLENECKS[name]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    kinds = get_type_hints(BOTTLENECKS[name].__init__)
    for option, value in options.items():
        if option not in known:
            what = f"bottleneck {name!r} has no option {option!r}; it takes {', '.join(known)}"
            raise UsageError(what + suggestion(f"bottleneck.{option}", list(known)))
        check_kind(f"bottleneck.{option}", value, kinds[option])
    return BOTTLENECKS[name].resolve(known | dict(options))


def build_bottleneck(name: str, latent_dim: int, options: Mapping[str, Any]) -> Bottleneck:
    """Make a bottleneck; its options are its constructor's keyword arguments.

    Raises UsageError for an unknown name or option, naming what there is.
    """
    options = bottleneck_options(name, options)
    kind = BOTTLENECKS[name]
    try:
        return kind(latent_dim, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"bottleneck {name!r} cannot be made from {dict(options)}: {error}") from error
