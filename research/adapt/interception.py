"""How a delta gets between a module and what it computes, without the module knowing."""

from collections.abc import Callable, Mapping
from typing import Any

from research.adapt.method import Site


def at(sites: Mapping[str, Site]) -> Callable[..., Any]:
    """An interceptor for `flax.linen.intercept_methods` that calls `sites[path](method, *arguments)`.

    `path` is the module's, as in its parameters' names (`layer_0/attention/query`), with `.METHOD` where it is not `__call__`.
    """

    def intercept(method, arguments, named, context):
        path = "/".join(context.module.path)
        site = sites.get(path if context.method_name == "__call__" else f"{path}.{context.method_name}")
        return method(*arguments, **named) if site is None else site(method, *arguments, **named)

    return intercept
