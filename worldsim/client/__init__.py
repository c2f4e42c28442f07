"""A client of a world that is served over WebSocket, for programs: `Client` for asyncio, `BlockingClient` for all else.

A connection that is lost is taken up again by itself, where it was, as long as the server waits for it. The protocol is
described in docs/protocol.md.
"""

from worldsim.client.blocking import BlockingClient
from worldsim.client.live import Client, Frame, Ticket

__all__ = ["BlockingClient", "Client", "Frame", "Ticket"]
