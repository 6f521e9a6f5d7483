"""Just enough of a W&B server for the real client to be online: takes runs, history, summaries and files; can go dark.

It also gives a sweep's tries to a real `wandb agent`, one after the other.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SmallServer:
    """Serves on a free port until closed. history: run id -> rows by line number.

    sweep: the configuration of the one sweep there is, as text; tries: (run id, values) that are still to be made.
    """

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.opened: list[dict[str, Any]] = []
        self.complete: dict[str, int] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.sweep = ""
        self.tries: list[tuple[str, dict[str, Any]]] = []
        self.dark = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, path: str, body: bytes) -> Any:
        if path == "/graphql":
            return {"data": self._graphql(json.loads(body))}
        if path.endswith("/file_stream"):
            run, sent = path.split("/")[-2], json.loads(body)
            for number, line in enumerate(sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])):
                offset = sent["files"]["wandb-history.jsonl"]["offset"]
                self.history.setdefault(run, {})[offset + number] = json.loads(line)
            for line in sent.get("files", {}).get("wandb-summary.json", {}).get("content", []):
                self.summary[run] = json.loads(line)
            if sent.get("complete"):
                self.complete[run] = sent["exitcode"]
        return {}

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        asked, given = request["query"], request.get("variables") or {}
        if "upsertBucket" in asked:
            if given.get("groupName"):  # a run begins; without `resume` it replaces one of the same id, W&B documents
                self.opened.append(given)
                self.history[given["name"]] = {}
            project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {
                "id": given["name"], "name": given["name"], "displayName": given.get("displayName"), "description": "",
                "config": "{}", "sweepName": None, "historyLineCount": 0, "project": project,
            }  # fmt: skip
            if given.get("sweep"):
                bucket["sweepName"] = given["sweep"]
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "viewer" in asked:
            teams = {"edges": [{"node": {"name": "me"}}]}
            return {
                "viewer": {"id": "me", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": teams}
            }
        if "SweepWithRuns" in asked:
            return {
                "project": {"sweep": {"id": "s", "name": given["sweep"], "config": self.sweep, "runs": {"edges": []}}}
            }
        if "createAgent" in asked:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "agentHeartbeat" in asked:
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(self._commands(given))}}
        if "createRunFiles" in asked:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def _commands(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        """The next try once the last one has ended; the end once there is none."""
        if json.loads(given["runState"]):
            return []
        if not self.tries:
            return [{"type": "exit"}]
        run, values = self.tries.pop(0)
        args = {name: {"value": value} for name, value in values.items()}
        return [{"type": "run", "run_id": run, "program": "ensemble", "args": args}]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if server.dark.is_set():
                    self.send_error(503)
                    return
                answer = json.dumps(server._answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_PUT = do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(Handler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client was killed
                    super().handle()

        return Quiet
