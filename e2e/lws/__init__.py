"""LeaderWorkerSets and their own controller, on a cluster that has none, for as long as a case needs them."""

from e2e.lws.controller import KIND, installed

__all__ = ["KIND", "installed"]
