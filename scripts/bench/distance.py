"""A line to a store that is far away: what is sent over it arrives later, and only so much of it at a time.

It stands for the network between an edge node and its bucket. Run as a program it listens on a port of its own, which it
prints, and carries connections to the port that it is given.
"""

import asyncio
import sys

ROUND_TRIP_SECONDS = 0.030
BYTES_PER_SECOND = 200_000_000 / 8

PIECE = 65536
PIECES_UNDER_WAY = 4 * int(ROUND_TRIP_SECONDS * BYTES_PER_SECOND / PIECE + 1)
"""How much a sender is ahead of its receiver: more than the line holds, as TCP's window is on a line that is used well."""


class Line:
    """One direction, shared by all connections."""

    def __init__(self):
        self.is_free_at = 0.0

    async def carry(self, reader, writer):
        """What comes from one end to the other, until one of them closes."""
        under_way = asyncio.Queue(PIECES_UNDER_WAY)
        arrivals = asyncio.ensure_future(self._deliver(under_way, writer))
        try:
            while piece := await reader.read(PIECE):
                await under_way.put((self._arrival(len(piece)), piece))
        except ConnectionError:
            pass
        finally:
            # The end of the connection arrives after what was sent before it.
            await under_way.put((self._arrival(0), None))
            await arrivals

    def _arrival(self, length):
        now = asyncio.get_running_loop().time()
        self.is_free_at = max(now, self.is_free_at) + length / BYTES_PER_SECOND
        return self.is_free_at + ROUND_TRIP_SECONDS / 2

    @staticmethod
    async def _deliver(under_way, writer):
        loop = asyncio.get_running_loop()
        is_open = True
        while True:
            arrival, piece = await under_way.get()
            if piece is None:
                writer.close()
                return
            if is_open:
                await asyncio.sleep(arrival - loop.time())
                try:
                    writer.write(piece)
                    await writer.drain()
                except ConnectionError:
                    # What else is sent there is lost, as on any line.
                    is_open = False


async def main(port):
    there, back = Line(), Line()

    async def connected(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(there.carry(reader, far_writer), back.carry(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
