from tessera.client import AsyncClient as AsyncClient
from tessera.client import Client as Client
from tessera.client import ClientError as ClientError
from tessera.client import Segmentation as Segmentation

__all__ = ["AsyncClient", "Client", "ClientError", "Segmentation"]
