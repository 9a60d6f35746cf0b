"""What Piccolo's own command line looks for (``PICCOLO_CONF=controlplane.store.piccolo_conf``)."""

from piccolo.conf.apps import AppRegistry

from controlplane.store.engine import DB

__all__ = ["APP_REGISTRY", "DB"]

APP_REGISTRY = AppRegistry(apps=["controlplane.store.piccolo_app"])
