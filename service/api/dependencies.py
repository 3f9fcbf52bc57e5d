"""Dependencies of the routes: the server's state, the caller, the model that a request names, ids in paths.

Knows nothing of what a route does with them.
"""

from fastapi import Request
from starlette.convertors import Convertor, register_url_convertor

from service.api.key_settings import Scope
from service.api.state import AppState
from service.errors import NotAllowed
from service.repository.served_model import Served


def state_of(request: Request) -> AppState:
    """Those of the server this request came to."""
    state: AppState = request.app.state.tessera
    return state


class Id(Convertor[int]):
    """The number of a cluster or an exemplar in a path, as answers write it: `{id:id}` matches no other spelling."""

    regex = "0|[1-9][0-9]{0,8}"

    def convert(self, value: str) -> int:
        """Its number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """As answers write it."""
        return str(value)


register_url_convertor("id", Id())


def known_caller(request: Request) -> str:
    """The name of who sent a request, where keys are configured. Raises KeyMissing, TooManyWrongKeys."""
    state = state_of(request)
    name = state.keys.authenticate(request.headers, state.proxies.client(request.scope)).name
    request.state.caller = name
    return name


def allowed_caller(request: Request, scope: Scope) -> str:
    """The same, of who may do this. Raises NotAllowed besides."""
    state = state_of(request)
    name = state.keys.allow(scope, request.headers, state.proxies.client(request.scope)).name
    request.state.caller = name
    if scope == "admin" and state.fleet.growing:
        raise NotAllowed(
            "the models here are those of the deployment, as a server that joins later would have no others: name the"
            " bundles there, and deploy it again"
        )
    return name


def served_of(request: Request, ref: str | None) -> Served:
    """The model a request names, for those who may ask; X-Model says which. Raises KeyMissing, NotFound, Busy."""
    known_caller(request)
    served = state_of(request).registry.get(ref)
    request.state.model = served.bundle.ref
    return served
