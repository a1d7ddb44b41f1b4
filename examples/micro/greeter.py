#!/usr/bin/env python3
"""A service of a mesh in Python, with nothing but the standard library: JSON-RPC over HTTP.

    ./greeter.py --micro 127.0.0.1:8081
    curl http://127.0.0.1:8081/greeter/say/hello -H 'Content-Type: application/json' -d '{"name": "John"}'

It registers itself with a lease, renews it while it runs, and takes itself out when it is told to end.
"""

import argparse
import json
import signal
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METHODS = {"Say.Hello": lambda request: {"msg": "Hello " + request.get("name", "you")}}


class Calls(BaseHTTPRequestHandler):
    """Answers calls: the method and its parameters in the body, a result or an error back."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"id": call.get("id"), "result": None, "error": None}
        try:
            answer["result"] = METHODS[call["method"]](call["params"][0] or {})
        except KeyError:
            # An error is a text; one that is an object of this kind decides the status at the caller.
            answer["error"] = json.dumps(
                {"id": "greeter", "code": 404, "detail": "no such method", "status": "Not Found"}
            )
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        """Says nothing of each call."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--micro", default="127.0.0.1:8081", help="where the daemon's micro listener is")
    arguments.add_argument("--name", default="go.micro.srv.greeter")
    arguments.add_argument("--ttl", type=int, default=30, help="seconds for which a registration holds")
    arguments = arguments.parse_args()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
    node = {"id": f"{arguments.name}-{uuid.uuid4()}", "address": "127.0.0.1", "port": server.server_port}
    service = json.dumps({"name": arguments.name, "nodes": [node]}).encode()
    ended = threading.Event()

    def say(method, query=""):
        url = f"http://{arguments.micro}/registry{query}"
        urllib.request.urlopen(urllib.request.Request(url, service, method=method), timeout=5).close()

    def stay():
        while not ended.wait(arguments.ttl / 3):
            try:
                say("POST", f"?ttl={arguments.ttl}s")
            except OSError as error:
                print("not registered:", error, flush=True)

    def end(*_):
        ended.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    say("POST", f"?ttl={arguments.ttl}s")
    print("serving on port", server.server_port, flush=True)
    threading.Thread(target=stay, daemon=True).start()
    server.serve_forever()
    say("DELETE")


if __name__ == "__main__":
    main()
