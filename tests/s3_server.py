"""A real S3 server for tests (moto's), and a proxy before it that counts requests and can be told to misbehave.

with s3_server() as s3:
    s3.new_bucket()
    s3.requests                      # [("PUT", "/there/a.txt", 12), ...]: method, path and bytes sent
    s3.mood = lambda method, path: 503 if method == "PUT" else None
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Mood = Callable[
    [str, str], int | str | None
]  # a status to answer with, "drop" the connection, or None for the real answer

KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
# Neither a person's own settings nor the network are asked for credentials.
ELSEWHERE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
CODES = {503: "SlowDown", 403: "AccessDenied", 400: "ExpiredToken", 404: "NoSuchKey"}


class S3Server:
    """The server and its proxy. endpoint: of the proxy. requests: those that came since `forget`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._buckets, self.bucket = 0, ""
        self.requests: list[tuple[str, str, int]] = []
        self.mood: Mood | None = None
        self.delay_s = 0.0
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._proxy.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to find the server."""
        return {**KEYS, **ELSEWHERE, "AWS_ENDPOINT_URL": self.endpoint}

    def forget(self) -> None:
        """Count from here on, and answer as the server does."""
        self.requests, self.mood, self.delay_s = [], None, 0.0

    def methods(self) -> Counter[str]:
        """How many requests came, by method."""
        return Counter(method for method, _, _ in self.requests)

    def client(self) -> Any:
        """boto3's client, past the proxy."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self._port}", region_name=KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id="tests", aws_secret_access_key="tests",
        )  # fmt: skip

    def new_bucket(self) -> None:
        """Make another bucket the one that `bucket` names."""
        self._buckets += 1
        self.bucket = f"bucket-{self._buckets}"
        self.client().create_bucket(Bucket=self.bucket)

    def contents(self) -> dict[str, bytes]:
        """Every object of the bucket."""
        client, bucket = self.client(), self.bucket
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        names = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    def close(self) -> None:
        """Stop the proxy."""
        self._proxy.shutdown()
        self._proxy.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_words: Any) -> None: ...

            def _answer(self) -> None:
                body = self._body()
                server.requests.append((self.command, self.path, len(body)))
                time.sleep(server.delay_s)
                mood = server.mood(self.command, self.path) if server.mood else None
                if mood == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif isinstance(mood, int):
                    code = CODES[mood]
                    self._send(mood, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())  # fmt: skip
                else:
                    self._send(*server.ask(self.command, self.path, dict(self.headers.items()), body))

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                lengths = [value for name, value in headers if name.lower() == "content-length"]
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                of_head = self.command == "HEAD" and lengths
                self.send_header("Content-Length", lengths[0] if of_head else str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

        return Handler

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The real server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            kept = {
                k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "content-length", "expect")
            }
            connection.request(method, path, body, {**kept, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Inside, the server runs, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **KEYS, **ELSEWHERE}
    )
    server = S3Server(port)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                server.ask("GET", "/moto-api/", {}, b"")
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.1)
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait()
