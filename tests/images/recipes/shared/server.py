"""An HTTP server that ends at SIGTERM when it has answered: what tini, dumb-init and s6 start."""

import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path != "/slow":
            self.wfile.write(b"hello\n")
            return
        for number in range(4):
            self.wfile.write(b"part %d\n" % number)
            time.sleep(1)


class Server(ThreadingHTTPServer):
    # server_close waits for the answers.
    daemon_threads = False


server = Server(("0.0.0.0", 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
