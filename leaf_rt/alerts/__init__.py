"""Events sent over the network: webhook and MQTT, each with a thread and a bounded queue of its own.

Knows events and addresses. Does not know sources, pipelines or files. Nothing here ever waits for the network.
"""

__all__ = ["config"]
