"""Dependencies of the routes: the server's state, the caller, the model that a request names.

Knows nothing of what a route does with them.
"""

from fastapi import Request

from service.api.state import AppState
from service.repository.served_model import Served


def state_of(request: Request) -> AppState:
    """Those of the server this request came to."""
    state: AppState = request.app.state.tessera
    return state


def known_caller(request: Request) -> str:
    """The name of who sent a request, where keys are configured. Raises KeyMissing."""
    return state_of(request).keys.authenticate(request.headers).name


def served_of(request: Request, ref: str | None) -> Served:
    """The model a request names, for those who may ask; X-Model says which. Raises KeyMissing, NotFound, Busy."""
    known_caller(request)
    served = state_of(request).registry.get(ref)
    request.state.model = served.bundle.ref
    return served
