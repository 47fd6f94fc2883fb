"""A forked child of a process that is watched, which executes runs of the schedulers that its parent watches."""

import logging

from taskscope.contracts import Bridge
from taskscope.forwarding import Forwarding
from taskscope.instance import new_instance
from taskscope.settings import Settings

logger = logging.getLogger("taskscope")


class Child:
    """Hands on what the bridges see in it. All else that it inherited belongs to its parent, and is left alone."""

    def __init__(self, url: str, settings: Settings) -> None:
        """At `url` is the owner of the history, or a collector."""
        self._instance = new_instance()
        self.carrier = Forwarding(url, settings, self._instance)
        self._attached: list[Bridge] = []

    def attach(self, bridge: Bridge) -> bool:
        """Have a bridge watch on, once; False where it cannot."""
        if bridge not in self._attached:
            bridge.instance = self._instance
            try:
                bridge.attach(self.carrier.emit)
            except Exception:  # isolation: the child goes on without
                logger.exception("taskscope cannot watch the %s in a forked child", bridge.system)
                return False
            self._attached.append(bridge)
        return True

    def close(self) -> None:
        """Watch no more, and send what was seen."""
        for bridge in self._attached:
            bridge.detach()
        self.carrier.stop()
