"""A Prefect server that ends with the process that started it: `python temporary_server.py FD`, FD a bound socket.

It is run by its path, without the package around it, so that it starts while the rest is still being imported.
"""

import os
import socket
import sys
import threading

import uvicorn
from prefect.server.api.server import create_app


def end_with_the_parent() -> None:
    """Standard input ends when the process that holds its other end does, however that dies."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    server.run([socket.socket(fileno=int(sys.argv[1]))])
    os._exit(0 if server.started else 3)  # a database's thread would keep alive what could not start
