"""The replicas of one deployment on Ray Serve, who ask each other through Ray.

Knows nothing of what is asked, or of HTTP.
"""

import asyncio
from typing import Any

from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from service.fleet.fleet import Call, Fleet, Reply, reply_of

_GRACE_S = 1.0  # for Ray, beside what the others may take


class Replicas(Fleet):
    """A replica among its like; Ray knows who they are, from when one can serve until it is told to end.

    method  of the deployment, by which Ray hands a call to `heard`
    """

    growing = True

    def __init__(self, method: str) -> None:
        super().__init__()
        context = serve.get_replica_context()
        self.member = context.replica_tag
        self._method, self._deployment, self._app = method, context.deployment, context.app_name

    async def ask(self, call: str, arguments: Call | None = None, *, limit_s: float = 5.0) -> list[Reply]:
        """As Fleet says. Where Ray itself has no answer in time, nobody's is known: one reply with the error."""
        handle = serve.get_deployment_handle(self._deployment, self._app)
        message = {"call": call, "arguments": arguments or {}}
        try:
            said = await handle.broadcast(self._method, self.member, message, limit_s).results_async(
                timeout_s=limit_s + _GRACE_S, return_exceptions=True
            )
        except DeploymentUnavailableError:  # no replica can serve yet
            return []
        except Exception as error:
            return [Reply("", error=f"Ray did not reach the other replicas: {str(error) or type(error).__name__}")]
        replies = (_reply(one) for one in said)
        return sorted((reply for reply in replies if reply.member != self.member), key=lambda reply: reply.member)

    async def heard(self, asker: str, message: Call, limit_s: float) -> tuple[str, Call]:
        """This replica's name, and its message that answers another's; it has nothing to say to itself."""
        if asker == self.member:
            return self.member, {}
        try:
            async with asyncio.timeout(limit_s):
                return self.member, await self.replied(message)
        except TimeoutError:
            return self.member, {"error": f"it has not answered within {limit_s:g} s"}


def _reply(said: Any) -> Reply:
    """Of what Ray brought; a replica that died meanwhile brought an exception."""
    if isinstance(said, BaseException):
        return Reply("", error=f"it ended meanwhile: {type(said).__name__}")
    return reply_of(*said)
